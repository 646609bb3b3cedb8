#!/usr/bin/env python3
"""./dev bench perplexity [--model DIR] [--threads N]: what smaller weights, keys and values cost, in perplexity on held-out text.

The rows are those of tests/golden/perplexity.json, which tools/make_perplexity.py wrote; the program is bench/perplexity.c."""

import argparse
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=os.path.join(ROOT, "models", "demo"), help="a folder with the demo model's vocabulary")
    parser.add_argument("--threads", type=int, default=0, help="0: one a core")
    parser.add_argument("--tp", type=int, default=1, help="ranks")
    args = parser.parse_args()
    sys.exit(subprocess.run([os.path.join(ROOT, "build", "release", "bin", "weir-perplexity"), "--model", args.model, "--rows",
                             os.path.join(ROOT, "tests", "golden", "perplexity.json"), "--threads", str(args.threads), "--tp", str(args.tp)]).returncode)


if __name__ == "__main__":
    main()
