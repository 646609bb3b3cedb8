#!/usr/bin/env bash
# ./dev lint: formatting, who includes whom, invariants, headers, shell and Python syntax, machine paths.
set -uo pipefail
cd "$(dirname "$0")/.."
bad=0
check() {
    local name=$1
    shift
    if out=$("$@" 2>&1); then printf 'ok    %s\n' "$name"; else printf 'FAIL  %s\n%s\n' "$name" "$out"; bad=1; fi
}
formatted() { git ls-files '*.c' '*.h' | xargs clang-format --dry-run -Werror; }
shell_syntax() { local f; for f in dev .ci/run $(git ls-files '*.sh'); do bash -n "$f" || return 1; done; }
python_syntax() { git ls-files '*.py' | xargs python3 -m py_compile; }
no_machine_paths() { ! git grep -nIE '/(wor[k]|hom[e]/[a-z]+|roo[t])/' -- . ':!*.json'; }
headers() {
    local gen
    gen=$(ls -d build/*/proto/gen 2>/dev/null | head -1)
    [ -n "$gen" ] || { echo "build something first: ./dev build"; return 1; }
    bash tests/headers.sh "$gen"
}
check "clang-format" formatted
check "include arrows" python3 tests/arrows.py
check "invariants are cited" python3 tests/invariants.py
check "headers compile alone" headers
check "shell syntax" shell_syntax
check "python syntax" python_syntax
check "no machine paths" no_machine_paths
exit $bad
