"""Tiny ONNX models for the tests, written to a model repository."""

import os

import numpy as np


def repository(folder):
    """Writes `add`, `echo_TYPE` for every type that ONNX and the protocol share, `label` and
    `scores`, each as version 1."""
    from onnx import TensorProto as T

    save(folder, "add", add())
    types = {
        "BOOL": T.BOOL,
        "UINT8": T.UINT8,
        "UINT16": T.UINT16,
        "UINT32": T.UINT32,
        "UINT64": T.UINT64,
        "INT8": T.INT8,
        "INT16": T.INT16,
        "INT32": T.INT32,
        "INT64": T.INT64,
        "FP16": T.FLOAT16,
        "BF16": T.BFLOAT16,
        "FP32": T.FLOAT,
        "FP64": T.DOUBLE,
        "BYTES": T.STRING,
    }
    for name, code in types.items():
        save(folder, f"echo_{name}", echo(code))
    save(folder, "scores", scores())
    return sorted(types)


def add():
    """a, b FP32 [-1, 2] → sum FP32 [-1, 2]"""
    from onnx import TensorProto as T, helper as h

    columns = [h.make_tensor_value_info(n, T.FLOAT, ["N", 2]) for n in ("a", "b")]
    total = h.make_tensor_value_info("sum", T.FLOAT, ["N", 2])
    return h.make_graph([h.make_node("Add", ["a", "b"], ["sum"])], "add", columns, [total])


def echo(code):
    """x [-1, 2] → y [-1, 2], the same"""
    from onnx import helper as h

    x = h.make_tensor_value_info("x", code, ["N", 2])
    y = h.make_tensor_value_info("y", code, ["N", 2])
    return h.make_graph([h.make_node("Identity", ["x"], ["y"])], "echo", [x], [y])


def scores():
    """x FP32 [-1, 3] → scores FP32 [-1, 3], the softmax"""
    from onnx import TensorProto as T, helper as h

    x = h.make_tensor_value_info("x", T.FLOAT, ["N", 3])
    y = h.make_tensor_value_info("scores", T.FLOAT, ["N", 3])
    return h.make_graph([h.make_node("Softmax", ["x"], ["scores"], axis=1)], "scores", [x], [y])


def regression():
    """x FP32 [-1, 3] → y FP32 [-1, 1], the sum of a row"""
    from onnx import TensorProto as T, helper as h, numpy_helper

    x = h.make_tensor_value_info("x", T.FLOAT, ["N", 3])
    y = h.make_tensor_value_info("y", T.FLOAT, ["N", 1])
    ones = numpy_helper.from_array(np.ones((3, 1), np.float32), "ones")
    return h.make_graph([h.make_node("MatMul", ["x", "ones"], ["y"])], "sum", [x], [y], [ones])


def save(folder, name, graph, version="1"):
    import onnx
    from onnx import helper as h

    path = os.path.join(folder, name, version)
    os.makedirs(path, exist_ok=True)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, os.path.join(path, "model.onnx"))
