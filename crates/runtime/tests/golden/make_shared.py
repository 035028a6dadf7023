"""Records what ONNX Runtime answers for the models of `shared/models`.

    python make_shared.py FOLDER

Writes `shared.json` beside this script; `tests/it/shared_models.rs` holds both engines to it.
Inputs are made by a rule that the test repeats to the bit, so only answers are recorded.
"""

import json
import pathlib
import sys

import numpy
import onnxruntime

ROWS = 3
MODELS = {
    "tab": (30, 40.0),
    "cancer_gb": (30, 40.0),
    "cancer_rf": (30, 40.0),
    "cancer_logreg": (30, 40.0),
    "iris_logreg": (4, 8.0),
    "reg_gb": (10, 0.2),
    "enc": (64, None),
    "cnn": (3 * 64 * 64, 1.0),
}


def steps(count):
    """Whole numbers from 0 to 7,999 that look random: squares modulo a prime."""
    index = numpy.arange(count, dtype=numpy.int64)
    return (index * index * 31 + index * 17 + 5) % 7993


def main(folder):
    answers = {}
    for name, (width, scale) in MODELS.items():
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", providers=["CPUExecutionProvider"])
        values = steps(ROWS * width)
        if scale is None:
            data = values.reshape(ROWS, width)
        else:
            data = values.astype(numpy.float32) / numpy.float32(7993) * numpy.float32(scale)
            data = data.reshape((ROWS, 3, 64, 64) if name == "cnn" else (ROWS, width))
        outputs = session.run(None, {session.get_inputs()[0].name: data})
        answers[name] = {
            "width": width,
            "scale": scale,
            "outputs": {
                info.name: {"shape": list(array.shape), "data": [float(f"{v:.9g}") for v in array.ravel()]}
                for info, array in zip(session.get_outputs(), outputs)
            },
        }
    result = {"onnxruntime": onnxruntime.__version__, "rows": ROWS, "models": answers}
    text = json.dumps(result, separators=(",", ":")).replace('},"', '},\n"')
    (pathlib.Path(__file__).parent / "shared.json").write_text(text + "\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
