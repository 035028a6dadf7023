"""Every dependency's licence must be one that deny.toml allows.

`cargo deny check` says more; this says the essential where that is not installed.
"""

import json
import re
import subprocess
import sys
import tomllib


def permitted(expression, allowed):
    """Whether an SPDX expression can be met with allowed licences alone."""
    # Older manifests write a slash for OR.
    words = re.findall(r"[()]|[^\s()/]+|/", expression)
    position = 0

    def peek():
        return words[position] if position < len(words) else ""

    def take():
        nonlocal position
        position += 1
        return words[position - 1]

    def any_of():
        met = all_of()
        while peek() in ("OR", "/"):
            take()
            met = all_of() or met
        return met

    def all_of():
        met = one()
        while peek() == "AND":
            take()
            met = one() and met
        return met

    def one():
        if peek() == "(":
            take()
            met = any_of()
            take()
            return met
        name = take()
        if peek() == "WITH":
            take()
            name = f"{name} WITH {take()}"
        return name in allowed

    return any_of()


def main():
    with open("deny.toml", "rb") as file:
        rules = tomllib.load(file)
    allowed = set(rules["licenses"]["allow"])
    command = ["cargo", "metadata", "--format-version", "1", "--locked"]
    for target in rules["graph"]["targets"]:
        command += ["--filter-platform", target]
    packages = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)["packages"]
    refused = [
        f"{package['name']} {package['version']}: {package['license'] or 'no licence expression'}"
        for package in packages
        if not package["license"] or not permitted(package["license"], allowed)
    ]
    print(f"{len(packages) - len(refused)} of {len(packages)} packages have an allowed licence")
    for line in refused:
        print(f"not allowed: {line}")
    sys.exit(1 if refused else 0)


if __name__ == "__main__":
    main()
