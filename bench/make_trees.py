"""Makes the models that the tree kernels are measured on, beyond those of the project's folder.

    python bench/make_trees.py FOLDER

Writes lightgbm_1000.onnx (1,000 trees of at most 31 leaves, grown leaf by leaf, 30 features) and
forest_100.onnx (100 deep trees, three classes). Needs lightgbm, scikit-learn, onnxmltools, skl2onnx.
"""
import pathlib
import sys

import lightgbm
import numpy as np
import onnx
import onnxmltools
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    x, y = make_classification(
        4_000, 30, n_informative=20, n_classes=2, flip_y=0.1, random_state=0)
    x = x.astype(np.float32)
    boosted = lightgbm.LGBMClassifier(
        n_estimators=1000, num_leaves=31, learning_rate=0.02, n_jobs=2, verbose=-1, random_state=0)
    boosted.fit(x, y)
    model = onnxmltools.convert_lightgbm(
        boosted, initial_types=[("X", FloatTensorType([None, 30]))], zipmap=False, target_opset=15)
    onnx.save(model, folder / "lightgbm_1000.onnx")

    x, y = make_classification(
        2_000, 30, n_informative=20, n_classes=3, flip_y=0.05, random_state=1)
    x = x.astype(np.float32)
    forest = RandomForestClassifier(100, n_jobs=2, random_state=0).fit(x, y)
    model = to_onnx(
        forest, x[:1], options={id(forest): {"zipmap": False}}, target_opset={"": 15, "ai.onnx.ml": 3})
    onnx.save(model, folder / "forest_100.onnx")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(pathlib.Path(sys.argv[1]))
