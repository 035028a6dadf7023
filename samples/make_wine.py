"""Makes the sample model that the project ships, and the request that goes with it.

Trained on the wine recognition data that scikit-learn ships (UCI Machine Learning Repository,
https://doi.org/10.24432/C5PC7J, CC BY 4.0): 13 measurements of a wine, three growers.

    python samples/make_wine.py        needs scikit-learn and skl2onnx
"""

import json
import pathlib

import numpy
import onnx
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_wine
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.metrics import accuracy_score
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FOLDER = pathlib.Path(__file__).parent


def main():
    wine = load_wine()
    features = wine.data.astype(numpy.float32)
    train_x, test_x, train_y, test_y = train_test_split(
        features, wine.target, test_size=0.25, random_state=7, stratify=wine.target
    )
    model = make_pipeline(
        StandardScaler(), GradientBoostingClassifier(n_estimators=30, max_depth=2, random_state=7)
    )
    model.fit(train_x, train_y)
    accuracy = accuracy_score(test_y, model.predict(test_x))
    proto = to_onnx(
        model,
        initial_types=[("measurements", FloatTensorType([None, features.shape[1]]))],
        options={"zipmap": False},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    proto.producer_name = "modelyard samples"
    proto.producer_version = ""
    proto.doc_string = "Which of three growers a wine is from, by 13 measurements."
    entries = {
        "features": ", ".join(wine.feature_names),
        "data": "Wine recognition data, UCI Machine Learning Repository, CC BY 4.0",
        "accuracy": f"{accuracy:.3f} on {len(test_y)} held-out rows",
    }
    onnx.helper.set_model_props(proto, entries)
    (FOLDER / "wine.onnx").write_bytes(proto.SerializeToString())
    rows = test_x[:2]
    request = {
        "inputs": [
            {
                "name": "measurements",
                "datatype": "FP32",
                "shape": list(rows.shape),
                "data": [float(str(value)) for value in rows.ravel()],
            }
        ]
    }
    (FOLDER / "request.json").write_text(json.dumps(request) + "\n")
    print(f"accuracy {accuracy:.3f}, answers {model.predict_proba(rows).tolist()}")


if __name__ == "__main__":
    main()
