"""Writes estimate.json: what NannyML estimates on its own data of car loans, for tests/it/estimate.rs.

Run with nannyml 0.13 and pandas < 3: python estimate.py
"""

import json
import pathlib

import nannyml
import numpy as np
from nannyml.calibration import IsotonicCalibrator
from nannyml.performance_estimation.confidence_based import metrics


def main():
    reference, analysis, _ = nannyml.load_synthetic_car_loan_dataset()
    reference, analysis = reference.iloc[:3000], analysis.iloc[::30]
    calibrator = IsotonicCalibrator()
    calibrator.fit(reference["y_pred_proba"], reference["repaid"])
    scores, decided = analysis["y_pred_proba"].to_numpy(), analysis["y_pred"].to_numpy()
    calibrated = calibrator.calibrate(scores)
    chunks = []
    for start in range(0, len(scores) - 500, 500):
        s, p, y = (x[start:start + 500] for x in (scores, calibrated, decided))
        raw = {name: float(getattr(metrics, f"estimate_{name}")(y, s))
               for name in ("accuracy", "precision", "recall", "specificity", "f1")}
        found = {name: float(getattr(metrics, f"estimate_{name}")(y, p))
                 for name in ("accuracy", "precision", "recall", "specificity", "f1")}
        found["roc_auc"] = float(metrics.estimate_roc_auc(p, s))
        raw["roc_auc"] = float(metrics.estimate_roc_auc(s, s))
        chunks.append({"scores": " ".join(map(repr, s.tolist())), "decided": "".join(map(str, y)),
                       "calibrated": [float(x) for x in p[:50]], "expected": found, "uncalibrated": raw})
    out = {
        "reference_scores": " ".join(map(repr, reference["y_pred_proba"].tolist())),
        "reference_labels": "".join(map(str, reference["repaid"].astype(int))),
        "chunks": chunks,
    }
    pathlib.Path(__file__).with_name("estimate.json").write_text(json.dumps(out, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
