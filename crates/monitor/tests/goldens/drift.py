"""Writes drift.json: the statistics of scipy and Evidently on real data, for tests/it/drift.rs.

Run with evidently 0.7, scipy, pandas < 3 and scikit-learn: python drift.py
"""

import json
import pathlib
import warnings

import numpy as np
import pandas as pd
from evidently.legacy.calculations import stattests
from evidently.legacy.calculations.stattests.tvd_stattest import _total_variation_distance
from evidently.legacy.core import ColumnType
from scipy import stats
from sklearn import datasets

warnings.simplefilter("ignore")


def score(test, before, after, kind):
    return float(test(before, after, kind, None).drift_score)


def numbers(name, before, after, whole, given=True):
    a, b = (pd.Series(x, dtype="int64" if whole else "float64") for x in (before, after))
    kind = ColumnType.Numerical
    ks = stats.ks_2samp(a, b)
    expected = {
        "kolmogorov_smirnov": float(ks.statistic),
        "kolmogorov_smirnov_p": score(stattests.ks_stat_test, a, b, kind),
        "wasserstein": float(stats.wasserstein_distance(a, b)),
        "wasserstein_normed": score(stattests.wasserstein_stat_test, a, b, kind),
        "psi": score(stattests.psi_stat_test, a, b, kind),
        "jensen_shannon": score(stattests.jensenshannon_stat_test, a, b, kind),
    }
    assert expected["kolmogorov_smirnov_p"] == float(ks.pvalue)
    # As text: a fast reader of JSON may be off by the last bit, which is a bin where values are at edges.
    text = lambda side: " ".join(map(repr, side.tolist()))
    data = {"before": text(a), "after": text(b)} if given else {}
    return {"name": name, "whole": whole, "expected": expected, **data}


def texts(name, before, after):
    a, b = pd.Series(before), pd.Series(after)
    kind = ColumnType.Categorical
    keys = sorted(set(a) | set(b))
    counts = [[int((side == key).sum()) for key in keys] for side in (a, b)]
    scale = len(b) / len(a)
    fit = stats.chisquare(counts[1], [count * scale for count in counts[0]])
    expected = {
        "psi": score(stattests.psi_stat_test, a, b, kind),
        "jensen_shannon": score(stattests.jensenshannon_stat_test, a, b, kind),
        "total_variation": float(_total_variation_distance(a, b)),
        "chi_squared": float(fit.statistic),
        "chi_squared_p": score(stattests.chi_stat_test, a, b, kind),
    }
    table = np.array(counts)
    if (stats.contingency.expected_freq(table) >= 5).all():
        whole = stats.chi2_contingency(table, correction=False)
        expected["homogeneity"], expected["homogeneity_p"] = float(whole.statistic), float(whole.pvalue)
    # JSON has no infinity.
    expected = {key: value if np.isfinite(value) else None for key, value in expected.items()}
    return {"name": name, "before": a.tolist(), "after": b.tolist(), "expected": expected}


def spread(n, factor, offset):
    """Numbers that both sides make alike: `offset` and so much of a stretched uniform sequence."""
    i = np.arange(1, n + 1, dtype=np.uint64)
    part = (i * np.uint64(2654435761) % np.uint64(2**32)).astype(np.float64) / 2.0**32
    return part * factor + offset


def main():
    cancer, wine = datasets.load_breast_cancer(as_frame=True), datasets.load_wine(as_frame=True)
    diabetes, digits = datasets.load_diabetes(as_frame=True), datasets.load_digits()
    columns, categories = [], []
    # Before and after by class: far apart; by halves: close. Sizes with and without a common divisor.
    benign = cancer.target == 1
    for name in list(cancer.data)[:6]:
        x = cancer.data[name]
        columns.append(numbers(f"breast cancer by class: {name}", x[benign], x[~benign], False))
        columns.append(numbers(f"breast cancer by halves: {name}", x[:284], x[284:568], False))
    for name in list(wine.data)[:5]:
        x = wine.data[name]
        columns.append(numbers(f"wine: {name}", x[wine.target != 1], x[wine.target == 1], False))
    for name in ("age", "sex", "bmi", "s5"):
        x = diabetes.data[name]
        columns.append(numbers(f"diabetes: {name}", x[:300], x[300:], False))
    for pixel in (2, 10, 20, 37, 60):
        x = digits.data[:, pixel].astype(int)
        columns.append(numbers(f"digits, whole: {pixel}", x[:900], x[900:], True))
    x = (wine.data["proline"]).astype(int)
    columns.append(numbers("wine, whole: proline", x[:100], x[60:], True))
    columns.append(numbers("wine, whole, narrow", x[:100] // 45, x[80:] // 45, True))
    columns.append(numbers("constant", [3.0] * 40, [3.0] * 25, False))
    columns.append(numbers("two constants", [3.0] * 40, [4.0] * 25, False))
    columns.append(numbers("one number each", [3.0], [4.0], False))
    named = lambda part: [str(wine.target_names[t]) for t in wine.target[part]]
    categories.append(texts("wine", named(slice(0, 178, 2)), named(slice(1, 178, 2))))
    categories.append(texts("wine, one class new", named(slice(0, 140)), named(slice(40, 178))))
    bins = pd.cut(diabetes.data["bmi"], 8, labels=list("abcdefgh")).astype(str)
    categories.append(texts("diabetes, some rare", bins[:250], bins[250:]))
    sex = diabetes.data["sex"].map(lambda s: "one" if s > 0 else "other")
    categories.append(texts("diabetes, two", sex[:200], sex[200:]))
    classes = [str(t) for t in digits.target]
    categories.append(texts("digits", classes[:1000], classes[1000:]))
    # Too many for the exact distribution; the ways by which scipy computes the limit.
    large = []
    for n, m, factor, offset in ((20000, 15000, 1.0, 0.0), (20000, 15000, 1.01, 0.0),
                                 (20000, 15000, 1.0, 0.02), (20000, 15000, 1.0, 0.3),
                                 (30000, 40, 1.0, 0.0), (30000, 40, 0.9, 0.02), (30000, 40, 0.7, 0.2),
                                 (30000, 1000, 1.0, 0.0), (30000, 1000, 1.02, 0.0),
                                 (30000, 1000, 1.06, 0.01), (12000, 12000, 1.0, 0.009),
                                 (9000, 7000, 1.0, 0.005), (9000, 7000, 1.02, 0.01)):
        case = numbers(f"{n} and {m}, {factor}, {offset}", spread(n, 1.0, 0.0) ** 2,
                       spread(m, factor, offset) ** 2, False, given=False)
        large.append({**case, "sizes": [n, m], "factor": factor, "offset": offset})
    tails = [[n, float(d), float(stats.kstwo.sf(d, n))]
             for n in (1, 2, 10, 60, 140, 141, 1000, 50_000, 200_000, 2_000_000)
             for d in np.array([0.2, 0.5, 0.7, 0.9, 1.2, 1.6, 2.2, 4.0]) / np.sqrt(n) if d < 1]
    chi = [[x, k, float(stats.chi2.sf(x, k))]
           for k in (1, 2, 3, 10, 100, 5000) for x in (0.01 * k, 0.7 * k, k, 1.5 * k + 1, 3.0 * k + 20)]
    tables = [[a, n, b, m, float(stats.fisher_exact([[a, n - a], [b, m - b]])[1])]
              for a, n, b, m in ((1, 20, 4, 25), (0, 50, 3, 40), (1, 1000, 8, 1200), (0, 8, 8, 8))]
    out = {"numbers": columns, "texts": categories, "large": large, "kstwo": tails, "chi2": chi,
           "fisher": tables}
    path = pathlib.Path(__file__).with_name("drift.json")
    path.write_text(json.dumps(out, separators=(",", ":")).replace('},{"name"', '},\n{"name"') + "\n")


if __name__ == "__main__":
    main()
