"""What most people write: FastAPI, pydantic, a list of numbers in and a list out."""

import os

import numpy
import onnxruntime
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

TYPES = {"FP32": numpy.float32, "INT64": numpy.int64}
NAMES = {numpy.dtype(kind): name for name, kind in TYPES.items()}

app = FastAPI()
session = onnxruntime.InferenceSession(os.environ["MODEL"], providers=["CPUExecutionProvider"])


class InputTensor(BaseModel):
    name: str
    datatype: str
    shape: list[int]
    data: list[float] | list[int]


class InferenceRequest(BaseModel):
    inputs: list[InputTensor]


@app.get("/v2/health/ready")
def ready():
    return {}


@app.post("/v2/models/{model}/infer")
def infer(model: str, request: InferenceRequest):
    try:
        feed = {
            tensor.name: numpy.array(tensor.data, dtype=TYPES[tensor.datatype]).reshape(tensor.shape)
            for tensor in request.inputs
        }
        results = session.run(None, feed)
    except Exception as error:
        raise HTTPException(400, str(error))
    outputs = [
        {"name": out.name, "datatype": NAMES[value.dtype], "shape": value.shape, "data": value.ravel().tolist()}
        for out, value in zip(session.get_outputs(), results)
    ]
    return {"model_name": model, "outputs": outputs}
