#!/usr/bin/env python3
"""Checks who includes whom: the arrows of the architecture, so that they cannot rot unseen.

base <- http, proto <- discovery <- {router, replica/serve, ctl, bench}; kernels includes base only;
replica/{engine,text,model} include base and kernels only; router and replica never include each other."""

import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ENGINE_SIDE = {"base", "kernels", "replica/text", "replica/model", "replica/engine", "replica/parallel"}
ALLOWED = {  # the most specific row wins
    "base": {"base"},
    "http": {"base", "http"},
    "proto": {"base", "proto"},
    "discovery": {"base", "discovery"},
    "kernels": {"base", "kernels"},
    "ledger": {"base", "ledger"},
    "replica/text": ENGINE_SIDE,
    "replica/grammar": {"base", "replica/text", "replica/grammar"},
    "replica/model": ENGINE_SIDE,
    "replica/engine": ENGINE_SIDE,
    "replica/parallel": ENGINE_SIDE,
    "replica": {"base", "http", "proto", "discovery", "replica", "ledger"},
    "router": {"base", "http", "proto", "discovery", "router", "ledger"},
    "ctl": {"base", "discovery", "proto", "ctl", "ledger"},
    "tests/support": {"base", "proto", "tests/support"},
    "bench": {"base", "http", "discovery", "proto", "bench", "tests/support", "replica/engine", "replica/model", "replica/parallel",
              "router/limits", "router/tenancy"},
}
# Foreign headers and the one folder that may include them.
DOORS = {"grpc/": "proto", "curl/": "discovery", "cuda": "kernels/cuda", "nccl": "kernels/cuda", "sqlite3": "ledger",
         "libpq": "ledger", "jemalloc/": "base", "xxhash": "base", "jansson": "tests", "pcre2": "replica/text"}


def row(path):
    """The longest prefix of `path` that has a row."""
    parts = path.split("/")
    for n in range(len(parts), 0, -1):
        if "/".join(parts[:n]) in ALLOWED:
            return "/".join(parts[:n])
    return None


def allowed(source, target):
    wanted = ALLOWED[source]
    return any(target == w or target.startswith(w + "/") for w in wanted)


def main():
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "--cached", "--others", "--exclude-standard", "*.c", "*.h"],
                           capture_output=True, text=True, check=True).stdout.split()
    faults, n_includes = [], 0
    for path in files:
        with open(os.path.join(ROOT, path), errors="replace") as file:
            text = file.read()
        source = row(path)
        for quote, name in re.findall(r'^\s*#\s*include\s+(["<])([^">]+)[">]', text, re.M):
            n_includes += 1
            for foreign, door in DOORS.items():
                if quote == "<" and name.startswith(foreign) and not path.startswith((door, "tests")):
                    faults.append(f"{path}: <{name}> may be included in {door}/ only")
            if quote != '"' or source is None or name.endswith(".pb-c.h"):
                continue
            if "/" not in name:
                faults.append(f'{path}: "{name}": write the path from the root')
            elif row(name) is None or not allowed(source, os.path.dirname(name)):
                faults.append(f'{path}: "{name}": {source} may not include it')
    print("\n".join(faults) or f"{n_includes} includes in {len(files)} files follow the arrows")
    if n_includes == 0:
        print("no include was found: the check itself is broken")
    sys.exit(1 if faults or n_includes == 0 else 0)


if __name__ == "__main__":
    main()
