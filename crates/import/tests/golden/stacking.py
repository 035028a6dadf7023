"""Checks import's verdicts on stacking against ONNX Runtime.

    python stacking.py make FOLDER     one model for each way to give rows to each of ONNX's own
                                       operator tests: rows first, and rows moved to axis 1 and last
    python stacking.py check FOLDER    for each name in FOLDER/batched.txt: does running the rows
                                       stacked give what running them one by one gives?

Between the two, the Rust test writes FOLDER/batched.txt: the models that import calls batched.
"""
import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

warnings.filterwarnings("ignore")
RANDOM = np.random.default_rng(7)


def variants(inputs):
    """Which inputs carry the rows: each alone, and all that have the first one's extent."""
    tensors = [i for i, v in enumerate(inputs) if isinstance(v, np.ndarray) and v.ndim >= 1 and v.shape[0] >= 1]
    sets = [[i] for i in tensors[:3]]
    if tensors:
        same = [i for i in tensors if inputs[i].shape[0] == inputs[tensors[0]].shape[0]]
        sets += [same] if len(same) > 1 else []
        floats = [i for i in same if inputs[i].dtype.kind == "f"]
        sets += [floats] if 1 < len(floats) < len(same) else []
    return sets


def swap(rank, axis):
    order = list(range(rank))
    order.remove(0)
    order.insert(axis, 0)
    return order


def build(model, inputs, rows, where):
    """A copy of the model in which the given inputs carry rows, moved to an axis by a Transpose."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    graph = model.graph
    names = [v.name for v in graph.input]
    infos = {v.name: v for v in graph.input}
    kept, extra = [], []
    data = {}
    for i, (name, value) in enumerate(zip(names, inputs)):
        if not isinstance(value, np.ndarray):
            return None
        if i not in rows:
            graph.initializer.append(numpy_helper.from_array(value, name))
            continue
        axis = {"first": 0, "second": 1, "last": value.ndim - 1}[where]
        if axis >= value.ndim or (where != "first" and axis == 0) or (where == "last" and axis == 1):
            return None
        elem = infos[name].type.tensor_type.elem_type
        moved = np.moveaxis(value, axis, 0)
        kept.append(helper.make_tensor_value_info("in_" + name, elem, ["N", *moved.shape[1:]]))
        perm = [int(a) for a in np.argsort([axis] + [a for a in range(value.ndim) if a != axis])]
        extra.append(helper.make_node("Transpose", ["in_" + name], [name], perm=perm))
        data["in_" + name] = moved
    del graph.input[:]
    graph.input.extend(kept)
    nodes = list(graph.node)
    tail = []
    outputs = []
    for out in list(graph.output):
        if not out.type.HasField("tensor_type"):
            return None
        rank = len(out.type.tensor_type.shape.dim)
        axis = {"first": 0, "second": 1, "last": rank - 1}[where]
        if rank == 0 or axis >= rank:
            return None
        perm = [axis] + [a for a in range(rank) if a != axis]
        tail.append(helper.make_node("Transpose", [out.name], ["out_" + out.name], perm=perm))
        info = onnx.ValueInfoProto()
        info.name = "out_" + out.name
        info.type.tensor_type.elem_type = out.type.tensor_type.elem_type
        outputs.append(info)
    del graph.output[:]
    graph.output.extend(outputs)
    del graph.node[:]
    graph.node.extend(extra + nodes + tail)
    del graph.value_info[:]
    return model, data


def make(folder):
    from onnx.backend.test.case.node import collect_testcases

    folder.mkdir(parents=True, exist_ok=True)
    everything = {}
    for case in collect_testcases(""):
        for data_set in (case.data_sets or [])[:1]:
            inputs = [v for v in data_set[0]]
            for index, rows in enumerate(variants(inputs)):
                for where in ("first", "second", "last"):
                    try:
                        built = build(case.model, inputs, rows, where)
                    except (ValueError, TypeError, NotImplementedError, AttributeError):
                        continue
                    if built is None:
                        continue
                    name = f"{case.name}.{index}.{where}"
                    (folder / f"{name}.onnx").write_bytes(built[0].SerializeToString())
                    everything[name] = built[1]
    (folder / "data.pickle").write_bytes(pickle.dumps(everything))
    print(f"made {len(everything)} models")


def row(value, index):
    """Row `index` of a value, with the rest of it shaken so that rows differ."""
    picked = value[index % value.shape[0]][None]
    if picked.dtype.kind == "f" and picked.dtype.itemsize >= 4:
        picked = picked + RANDOM.uniform(-0.4, 0.4, picked.shape).astype(picked.dtype)
    elif picked.size > 1 and index % 2:
        picked = RANDOM.permutation(picked.reshape(-1)).reshape(picked.shape)
    return picked


def check(folder):
    import onnxruntime

    onnxruntime.set_default_logger_severity(4)
    everything = pickle.loads((folder / "data.pickle").read_bytes())
    counts = {"same": 0, "different": 0, "not run": 0}
    for name in (folder / "batched.txt").read_text().split():
        data = everything[name]
        try:
            session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
            rows = [{key: row(value, i) for key, value in data.items()} for i in range(3)]
            alone = [session.run(None, one) for one in rows]
        except Exception:
            counts["not run"] += 1
            continue
        try:
            stacked = session.run(None, {key: np.concatenate([one[key] for one in rows]) for key in data})
            same = all(
                whole.shape[0] == 3
                and all(close(whole[i : i + 1], alone[i][j]) for i in range(3))
                for j, whole in enumerate(stacked)
            )
        except Exception as error:
            print(f"FAILS STACKED {name}: {str(error)[:200]}")
            same = False
        counts["same" if same else "different"] += 1
        if not same:
            print(f"DIFFERENT {name}")
    print(counts)
    sys.exit(counts["different"] > 0 or counts["same"] < 500)


def close(a, b):
    if a.shape != b.shape:
        return False
    if a.dtype.kind in "OUSb":
        return bool((a == b).all())
    return np.allclose(a.astype(np.float64), b.astype(np.float64), rtol=1e-4, atol=1e-5, equal_nan=True)


if __name__ == "__main__":
    {"make": make, "check": check}[sys.argv[1]](Path(sys.argv[2]))
