"""Makes choice.txt: what the rule in choice.rs chooses, by another implementation of xxHash.

    pip install xxhash && python choice.py > choice.txt
"""

import math

import xxhash


def seed(model: str, version: str) -> int:
    name = model.encode()
    return xxhash.xxh64_intdigest(len(name).to_bytes(8, "little") + name + version.encode(), seed=0)


def choose(model: str, shares: list[int], key: str) -> int:
    def draw(position: int) -> float:
        bits = xxhash.xxh64_intdigest(key.encode(), seed=seed(model, str(position))) >> 11
        return -math.log((bits + 0.5) / 2**53) / shares[position]

    return min((p for p, share in enumerate(shares) if share > 0), key=draw)


print("# model, shares of the versions 0, 1, …, key, position of the version chosen")
CASES = [("fraud", [95, 5]), ("fraud", [50, 50]), ("fraud", [1, 2, 3, 0, 4]), ("größe", [700, 300]), ("", [1, 1])]
KEYS = ["user-1", "user-2", "42", "a" * 256, "customer 7~", "0b5a7e3c-11d2-4c55-9a0e-6f6d0a3c9b11"]
for model, shares in CASES:
    for key in KEYS:
        print(model, ",".join(map(str, shares)), key, choose(model, shares, key), sep="\t")
