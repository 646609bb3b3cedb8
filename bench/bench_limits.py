#!/usr/bin/env python3
"""./dev bench limits [--json]: what one admission costs; what is measured and how is told in bench_limits.c."""

import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
program = os.path.join(ROOT, "build", "release", "bin", "weir-bench-limits")
os.execv(program, [program, *sys.argv[1:]])
