#!/usr/bin/env python3
"""Every numbered invariant that a file states, like [L1], is cited by an assertion, a comment at the place that keeps it, or
a test; a number that nothing cites is a promise that nobody keeps an eye on."""

import collections
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NUMBER = re.compile(r"\[([A-Z]{1,2}\d{1,2})\]")


def main():
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h"],
                           capture_output=True, text=True, check=True).stdout.split()
    texts = {}
    for path in files:
        if os.path.exists(os.path.join(ROOT, path)):
            with open(os.path.join(ROOT, path), errors="replace") as file:
                texts[path] = file.read()
    by_folder = collections.defaultdict(lambda: collections.Counter())
    for path, text in texts.items():
        by_folder[os.path.dirname(path)].update(NUMBER.findall(text))
    tests = collections.Counter(n for path, text in texts.items() if path.startswith("tests/") for n in NUMBER.findall(text))
    faults, n_stated = [], 0
    for path, text in texts.items():
        if path.startswith("tests/") or not text.startswith("/*"):
            continue
        head = text[:text.find("*/")]
        for number in sorted(set(NUMBER.findall(head))):
            n_stated += 1
            # Cited beyond the head: in this file, beside it, or in a test.
            elsewhere = by_folder[os.path.dirname(path)][number] - NUMBER.findall(head).count(number) + tests[number]
            if elsewhere < 1:
                faults.append(f"{path}: [{number}] is stated and never cited")
    print("\n".join(faults) or f"{n_stated} invariants stated, all cited")
    sys.exit(1 if faults or n_stated == 0 else 0)


if __name__ == "__main__":
    main()
