"""Turns what the test runners print into counts, one line each: passed failed skipped source.

A test that had nothing to run on prints "SKIPPED: reason": it counts as skipped, not as passed.
`total FILE` adds such lines up, says what was skipped and why, and fails if anything failed.
"""

import os
import re
import sys
import xml.etree.ElementTree as xml


def out(passed, failed, skipped, source):
    print(passed, failed, skipped, source)


def reasons(text):
    return re.findall(r"^\s*SKIPPED: (.*)$", text or "", re.MULTILINE)


def junit(path):
    if not os.path.exists(path):
        return out(0, 1, 0, f"tests that left no report in {os.path.basename(path)}")
    passed = failed = skipped = 0
    for case in xml.parse(path).iter("testcase"):
        text = "".join(e.text or "" for e in case if e.tag in ("system-out", "system-err"))
        why = reasons(text)
        mark = case.find("skipped")
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif mark is not None or why:
            skipped += 1
            why = why or [mark.get("message") or "no reason given"]
            print(f"SKIPPED {case.get('classname')} {case.get('name')}: {why[0]}", file=sys.stderr)
        else:
            passed += 1
    out(passed, failed, skipped, os.path.basename(path))


def cargo(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()
    passed = failed = skipped = 0
    pattern = r"^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored"
    for ok, bad, ignored in re.findall(pattern, text, re.MULTILINE):
        passed, failed, skipped = passed + int(ok), failed + int(bad), skipped + int(ignored)
    # With --show-output, each test's lines come under a heading of its own.
    for section in re.split(r"^---- .* stdout ----$", text, flags=re.MULTILINE)[1:]:
        why = reasons(section.split("\n\n")[0] or section)
        if why:
            print(f"SKIPPED: {why[0]}", file=sys.stderr)
            passed, skipped = passed - 1, skipped + 1
    if re.search(r"^error: (test failed|could not compile|\d+ targets? failed)", text, re.MULTILINE):
        failed = max(failed, 1)
    out(max(passed, 0), failed, skipped, os.path.basename(path))


def tap(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read()

    def number(name):
        found = re.findall(rf"^# {name} (\d+)$", text, re.MULTILINE)
        return int(found[-1]) if found else None

    if number("pass") is None:
        return out(0, 1, 0, f"tests that left no count in {os.path.basename(path)}")
    failed = number("fail") + (number("cancelled") or 0)
    out(number("pass"), failed, number("skipped") + (number("todo") or 0), "browser")


def total(path):
    passed = failed = skipped = 0
    lines = open(path, encoding="utf-8").read().splitlines() if os.path.exists(path) else []
    for line in lines:
        ok, bad, left, source = line.split(" ", 3)
        passed, failed, skipped = passed + int(ok), failed + int(bad), skipped + int(left)
        if int(bad):
            print(f"FAILED: {bad} of {source}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    {"junit": junit, "cargo": cargo, "tap": tap, "total": total}[sys.argv[1]](sys.argv[2])
