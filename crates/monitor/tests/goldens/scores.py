"""Makes scores.json beside this file: cases, and what scikit-learn says of them.

python3 scores.py      (scikit-learn 1.9, numpy 2.4)
"""

import json
import pathlib

import numpy as np
from sklearn import metrics
from sklearn.calibration import calibration_curve


def classes(random, rows, count, weighted):
    actual = random.integers(0, count, rows)
    logits = random.normal(size=(rows, count)) + 1.2 * np.eye(count)[actual]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # Ties, and numbers that every reader of JSON reads alike: parts of 64.
    parts = np.floor(probabilities * 64)
    parts[np.arange(rows), parts.argmax(axis=1)] += 64 - parts.sum(axis=1)
    probabilities = parts / 64
    predicted = probabilities.argmax(axis=1)
    weight = random.choice([1.0, 10.0], rows) if weighted else np.ones(rows)
    scores = metrics.precision_recall_fscore_support(
        actual, predicted, labels=range(count), sample_weight=weight, zero_division=np.nan
    )
    two = count == 2
    scored = probabilities[:, 1] if two else probabilities
    positive = actual == 1 if two else actual == predicted
    confidence = probabilities[:, 1] if two else probabilities.max(axis=1)
    edges = np.linspace(0, 1, 11)
    bins = np.searchsorted(edges[1:-1], confidence)
    filled = [b for b in range(10) if (bins == b).any()]
    observed = [np.average(positive[bins == b], weights=weight[bins == b]) for b in filled]
    mean = [np.average(confidence[bins == b], weights=weight[bins == b]) for b in filled]
    part = [weight[bins == b].sum() / weight.sum() for b in filled]
    if not weighted:
        true, predicted_curve = calibration_curve(positive, confidence, n_bins=10)
        np.testing.assert_allclose(true, observed)
        np.testing.assert_allclose(predicted_curve, mean)
    brier = (
        metrics.brier_score_loss(positive, scored, sample_weight=weight) if two else
        np.average(((probabilities - np.eye(count)[actual]) ** 2).sum(axis=1), weights=weight)
    )
    return {
        "count": count,
        "actual": actual.tolist(), "predicted": predicted.tolist(), "weight": weight.tolist(),
        "probabilities": probabilities.tolist(),
        "accuracy": metrics.accuracy_score(actual, predicted, sample_weight=weight),
        "precision": scores[0].tolist(), "recall": scores[1].tolist(), "f1": scores[2].tolist(),
        "confusion": metrics.confusion_matrix(actual, predicted, sample_weight=weight).tolist(),
        "roc_auc": metrics.roc_auc_score(actual, scored, sample_weight=weight, multi_class="ovr"),
        "log_loss": metrics.log_loss(actual, probabilities, sample_weight=weight, labels=range(count)),
        "brier": brier,
        "calibration": [list(map(float, one)) for one in zip(mean, observed)],
        "calibration_error": float(sum(p * abs(m - o) for p, m, o in zip(part, mean, observed))),
    }


def numbers(random, rows):
    actual = random.lognormal(size=rows)
    predicted = actual * random.lognormal(0.1, 0.3, rows)
    weight = random.choice([1.0, 4.0], rows)
    return {
        "actual": actual.tolist(), "predicted": predicted.tolist(), "weight": weight.tolist(),
        "mean_absolute_error": metrics.mean_absolute_error(actual, predicted, sample_weight=weight),
        "root_mean_squared_error":
            metrics.root_mean_squared_error(actual, predicted, sample_weight=weight),
        "bias": float(np.average(predicted - actual, weights=weight)),
        "r2": metrics.r2_score(actual, predicted, sample_weight=weight),
    }


random = np.random.default_rng(11)
golden = {
    "classification": [
        classes(random, rows, count, weighted)
        for rows, count, weighted in [(200, 2, False), (200, 2, True), (200, 4, False), (200, 4, True)]
    ],
    "regression": [numbers(random, 200)],
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden))
