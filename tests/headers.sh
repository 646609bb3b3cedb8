#!/usr/bin/env bash
# Every header compiles alone, as C17; those that nvcc may read (base, kernels) as C++17 too.
# usage: headers.sh <folder with the generated protobuf headers>
set -u
cd "$(dirname "$0")/.."
bad=0 n=0
for header in $(git ls-files --cached --others --exclude-standard '*.h'); do
    [ -f "$header" ] || continue
    case $header in *_body.h) continue ;; esac # a template, for the file that sets its parameters
    n=$((n + 1))
    printf '#include "%s"\n' "$header" | gcc -std=c17 -D_GNU_SOURCE -Wall -Wextra -I. -isystem "$1" -fsyntax-only -x c - ||
        { echo "$header does not compile alone"; bad=1; }
    case $header in base/*_int.h) ;; base/*.h | kernels/kernels.h)
        grep -q 'stdatomic' "$header" ||
            printf '#include "%s"\n' "$header" | g++ -std=c++17 -D_GNU_SOURCE -I. -fsyntax-only -x c++ - ||
            { echo "$header does not compile as C++17"; bad=1; } ;;
    esac
done
echo "$n headers compiled alone"
[ "$n" -gt 0 ] && exit $bad
