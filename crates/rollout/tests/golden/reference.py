"""Makes reference.json: the statistics of this crate, computed another way.

scipy's noncentral hypergeometric distribution, exact sums over the hypergeometric one, numerical
integration and a root finder stand in for the crate's recursions and bisection.

    python crates/rollout/tests/golden/reference.py

Made with scipy 1.17.1 and numpy 2.4.6.
"""

import json
import pathlib

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import beta, hypergeom, mannwhitneyu, nchypergeom_fisher

RATIOS = [1.25**i for i in (-8, -3, 1, 5, 10, 18)]
CROWDS = [1.5, 2.5, 4.5, 9.0, 30.0]
TABLES = [
    # champion's requests and failures, candidate's requests and failures
    (475, 5, 25, 0),
    (475, 5, 25, 3),
    (19, 0, 1, 1),
    (9, 9, 5, 2),
    (300, 40, 100, 30),
    (9500, 95, 500, 12),
    (3, 3, 40, 10),
]


def odds(champion, champion_failed, candidate, candidate_failed):
    every, failed = champion + candidate, champion_failed + candidate_failed
    equal = hypergeom.logpmf(candidate_failed, every, failed, candidate)
    logs, excess = [], []
    for ratio in RATIOS:
        given = nchypergeom_fisher.pmf(candidate_failed, every, failed, candidate, ratio)
        logs.append(float(np.log(given) - equal))
    least, most = max(0, failed - champion), min(failed, candidate)
    limit = min(max(failed * candidate // every + 1, least + 1), most)
    counts = np.arange(least, most + 1)
    chosen = counts >= limit if candidate_failed >= limit else counts < limit
    for ratio in CROWDS:
        weights = hypergeom.pmf(counts, every, failed, candidate) * ratio**counts.astype(float)
        null = hypergeom.pmf(counts, every, failed, candidate)
        excess.append(float(np.log(weights[chosen].sum() / weights.sum() / null[chosen].sum())))
    return {
        "table": [champion, champion_failed, candidate, candidate_failed],
        "logs": logs,
        "excess": excess,
    }


def rate(successes, trials, alpha):
    """The rates at which the mixed likelihood ratio is below 1 / alpha."""

    def log_ratio(p):
        def integrand(q):
            log = successes * np.log(q / p) + (trials - successes) * np.log((1 - q) / (1 - p))
            return np.exp(log) * beta.pdf(q, 0.5, 0.5)

        centre = successes / trials
        points = sorted({min(max(centre + d, 1e-6), 1 - 1e-6) for d in (-0.05, -0.01, 0, 0.01, 0.05)})
        return np.log(quad(integrand, 0, 1, points=points, limit=500)[0])

    def surplus(p):
        return log_ratio(p) + np.log(alpha)

    centre = successes / trials
    low = brentq(surplus, centre / 20, centre) if successes else 0.0
    high = brentq(surplus, centre if successes else 1e-7, 0.6)
    return {"successes": successes, "trials": trials, "alpha": alpha, "bounds": [low, high]}


def signs():
    random = np.random.default_rng(3)
    cases = []
    for champions, candidates in [(40, 3), (7, 7), (90, 1), (30, 12)]:
        champion = random.integers(200, 230, champions)
        candidate = random.integers(200, 232, candidates)
        statistic = mannwhitneyu(candidate, champion).statistic
        cases.append(
            {
                "champion": champion.tolist(),
                "candidate": candidate.tolist(),
                "sign": float(np.sign(statistic - champions * candidates / 2)),
            }
        )
    return cases


golden = {
    "ratio_powers": [-8, -3, 1, 5, 10, 18],
    "crowds": CROWDS,
    "odds": [odds(*table) for table in TABLES],
    "rates": [rate(3, 100, 0.05), rate(0, 50, 0.01), rate(30, 900, 0.01)],
    "signs": signs(),
}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(golden, indent=1) + "\n")
