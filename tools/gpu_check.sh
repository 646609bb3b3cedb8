#!/usr/bin/env bash
# ./dev gpu-check: builds the CUDA back end with nvcc and a C compiler alone, checks every kernel against float64
# and models of every family against the CPU back end on the GPU, on several ranks too, and measures.
# Needs nvcc, cuBLASLt and a C/C++ compiler; no CMake, no gRPC, no cmocka, no network; NCCL and compute-sanitizer where they are. Ends with
# 0: all passed; 1: something failed; 77: built, and there is no GPU to run on. The table of docs/gpu.md is rewritten only by a run
# on a GPU that passed.
#   --build   stop after building
#   --emulate run all of it over the emulator first; the table goes into build/gpu/emulated.md, and its times mean nothing
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/gpu
cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || echo "$cuda/bin/nvcc")
cc=${CC:-$(command -v cc || command -v gcc || command -v clang || true)}
cxx=${CXX:-$(command -v c++ || command -v g++ || command -v clang++ || true)}
stop_at_build= emulate=
for arg in "$@"; do
    case $arg in
    --build) stop_at_build=1 ;;
    --emulate) emulate=1 ;;
    *) echo "gpu-check: no such option: $arg" >&2; exit 2 ;;
    esac
done
say() { printf '== %s\n' "$*"; }
[ -x "$nvcc" ] || { echo "gpu-check: no nvcc; set CUDA_HOME" >&2; exit 2; }
[ -n "$cc" ] || { echo "gpu-check: no C compiler" >&2; exit 2; }
[ -n "$cxx" ] || { echo "gpu-check: no C++ compiler" >&2; exit 2; }
nvcc=$(readlink -f "$nvcc") # it looks for its parts beside itself
cuda=$(cd "$(dirname "$nvcc")/.." && pwd)
lib=$cuda/lib64
[ -d "$lib" ] || lib=$cuda/lib
rm -rf "$out"
mkdir -p "$out/emu"

# ---- building ----
# The GPU's own architecture, or those the product is built for.
cap=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d . || true)
case $cap in
[0-9]*) arch=(-gencode "arch=compute_$cap,code=sm_$cap") ;;
*) arch=(-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90 -gencode arch=compute_100,code=sm_100) ;;
esac
cflags=(-std=c17 -O2 -D_GNU_SOURCE -I. -fPIC -fvisibility=hidden)
emuflags=(-std=c++17 -O2 -ffp-contract=off -D_GNU_SOURCE -DWEIR_EMU -I.)
nvflags=(-std=c++17 -O3 -I. -D_GNU_SOURCE -Xcompiler "-fPIC,-fvisibility=hidden" "${arch[@]}")
link=(-L"$lib" -lcudart_static -lcublasLt -ldl -lrt -lpthread -lm -lstdc++ -Wl,-rpath,"$lib")

# compile_c <list> <file>...: objects, whose names go to the end of the list.
compile_c() {
    local -n list=$1
    local file object
    shift
    for file in "$@"; do
        object=$out/${file//\//_}.o
        "$cc" "${cflags[@]}" -c "$file" -o "$object"
        list+=("$object")
    done
}

# The words of `set(<name> ...)` or of a target in a CMakeLists.txt, so that no list is kept twice.
listed() { sed -n "s/^ *$2\([^)]*\)).*/\1/p" "$1"; }

say "building into $out with $nvcc"
table=() support=() checks=() models=() device=() bench=() library=()
# shellcheck disable=SC2046 # several words
compile_c table kernels/q4.c $(listed kernels/cuda/CMakeLists.txt 'set(table ' | sed 's| *\([a-z0-9_]*\.c\)| kernels/cuda/\1|g')
compile_c support base/{err,mem,utf8}.c
for file in kernels/cuda/*.cu; do
    object=$out/$(basename "$file").o
    "$nvcc" "${nvflags[@]}" -c "$file" -o "$object"
    device+=("$object")
done
compile_c library kernels/cuda/plugin_main.c
"$cc" -shared "${library[@]}" "${table[@]}" "${support[@]}" "${device[@]}" -o "$out/libweir_cuda.so" "${link[@]}" -Wl,--exclude-libs,ALL -Wl,-z,defs
# The checks want one hash of base/hash.c, whose other functions want OpenSSL and libxxhash. Those tell models apart for others; here
# nobody asks for them.
{
    printf '%s\n' '#include "base/hash.h"' '#include <string.h>' 'uint64_t weir_hash_mix(uint64_t hash, uint64_t value)' '{' \
        "$(sed -n '/^uint64_t weir_hash_mix/,/^}/p' base/hash.c | sed '1,2d')"
    printf '%s\n' 'void weir_sha256(const void *data, size_t len, uint8_t ret[32])' '{' '    (void)data, (void)len;' \
        '    memset(ret, 0, 32);' '}' 'uint64_t weir_hash64(const void *data, size_t len, uint64_t seed)' '{' '    (void)data;' \
        '    return len ^ seed;' '}'
} >"$out/hash.c"
compile_c support "$out/hash.c"
compile_c checks tests/unit/cuda/rig.c tests/unit/cuda/check_*.c

# Whole models: the graph, the ranks and the CPU back end that they are compared with. What serves is not needed, nor any library.
compile_c models base/{arena,buf,clock,json_read,json_write,number,thread}.c kernels/cuda/plugin.c \
    kernels/cpu/{cpu,pack,product,rows,experts,attend,group,pool}.c replica/parallel/*.c tests/support/{golden,tiny}_model.c
for file in replica/model/*.c; do
    [ "$file" = replica/model/safetensors.c ] || compile_c models "$file"
done
cpu_ops=(ops_generic)
case $(uname -m) in x86_64) cpu_ops+=(ops_avx2 ops_avx512 ops_vnni ops_dots dots_bf16 dots_bytes attend_dots ops_amx attend_amx) ;; esac
avx512='-mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma'
for ops in "${cpu_ops[@]}"; do
    case $ops in # as in kernels/CMakeLists.txt
    ops_generic) machine='' ;;
    ops_avx2) machine='-mavx2 -mfma -mf16c' ;;
    ops_avx512) machine="$avx512 -mprefer-vector-width=512" ;;
    ops_vnni) machine="$avx512 -mavx512vnni" ;;
    *_amx) machine="$avx512 -mavx512bf16 -mamx-tile -mamx-bf16 -mamx-int8" ;;
    *) machine="$avx512 -mavx512vnni -mavx512bf16" ;;
    esac
    # shellcheck disable=SC2086 # several options
    "$cc" "${cflags[@]}" -O3 -ffp-contract=fast -fno-math-errno -Wno-psabi $machine -c kernels/cpu/$ops.c -o "$out/$ops.o"
    models+=("$out/$ops.o")
done
# Real weights come from files, the benchmark's from nowhere: it has functions of its own for those of safetensors.c.
files=() main=() steps=()
compile_c files replica/model/safetensors.c
compile_c main tests/unit/cuda/gpu_models.c
compile_c bench tests/unit/cuda/bench_cuda.c
compile_c steps tests/unit/cuda/bench_steps.c
# Only what the benchmark's graph wants: the rest would want the files.
graph=()
for object in "${models[@]}"; do
    case $object in *replica_parallel_parallel.c.o | *golden_model.c.o | *tiny_model.c.o) ;; *) graph+=("$object") ;; esac
done
"$nvcc" "${nvflags[@]}" -c tests/unit/cuda/copy.cu -o "$out/copy.cu.o"

# link_all <where> <how to link>...: the three programs over a device.
link_all() {
    local to=$1
    shift
    "$cc" "${checks[@]}" "${support[@]}" "$@" -o "$to/check_cuda"
    "$cc" "${main[@]}" "${models[@]}" "${files[@]}" "${table[@]}" "${support[@]}" "$@" -o "$to/gpu_models"
}
link_all "$out" "${device[@]}" "${link[@]}"
"$cc" "${bench[@]}" "${steps[@]}" "$out/copy.cu.o" "${graph[@]}" "${table[@]}" "${support[@]}" "${device[@]}" -o "$out/bench_cuda" "${link[@]}"
if [ -n "$emulate" ]; then
    emulated=()
    for file in emu kernels dev_emu; do
        "$cxx" "${emuflags[@]}" -c kernels/cuda/emu/$file.cc -o "$out/emu/$file.o"
        emulated+=("$out/emu/$file.o")
    done
    "$cxx" "${emuflags[@]}" -c tests/unit/cuda/copy_emu.cc -o "$out/emu/copy.o"
    link_all "$out/emu" "${emulated[@]}" -lstdc++ -ldl -lpthread -lm
    "$cc" "${bench[@]}" "${steps[@]}" "$out/emu/copy.o" "${graph[@]}" "${table[@]}" "${support[@]}" "${emulated[@]}" -o "$out/emu/bench_cuda" \
        -lstdc++ -ldl -lpthread -lm
fi
say "built: $out/libweir_cuda.so for ${arch[*]##*code=}, check_cuda, gpu_models, bench_cuda"
[ -z "$stop_at_build" ] || exit 0

# ---- running ----
has_nccl() { [ -e "$lib/libnccl.so.2" ] || ldconfig -p 2>/dev/null | grep -q 'libnccl\.so\.2'; }

# Every wait for a device or a rank has a bound of its own; `timeout` is for what nobody thought of.
run_models() { timeout 600 "$where/gpu_models" "$@"; }

on_ranks() {
    local ranks
    say "models of every family against the CPU"
    run_models 1
    for ranks in 2 4 8 16; do
        [ "$n_gpu" -ge $ranks ] || break
        say "the same on $ranks GPUs: NCCL where it is, and the one-shot sum"
        run_models $ranks
    done
    say "the same on 2 ranks of one GPU: sums in the process"
    CUDA_VISIBLE_DEVICES=0 run_models 2
    if [ "$where" = "$out/emu" ]; then
        echo "NCCL is not for the emulator: test_nccl has a fake one"
    elif has_nccl; then
        say "the same on one rank, sums by NCCL"
        WEIR_NCCL=1 run_models 1
    else
        echo "libnccl.so.2 is not here: NCCL is not checked"
    fi
}

sanitized() {
    local tool check
    command -v compute-sanitizer >/dev/null || { echo "compute-sanitizer is not here: skipped"; return 0; }
    for tool in memcheck racecheck synccheck initcheck; do
        for check in embed add_rmsnorm silu 'attention: padding' linear route experts sample fp8 columns; do
            say "compute-sanitizer $tool: $check"
            compute-sanitizer --tool $tool --error-exitcode 1 "$where/check_cuda" "$check"
        done
    done
}

# everything <where the programs are> <where the table goes>. Called plainly: `set -e` must hold in it.
everything() {
    where=$1
    say "every kernel against float64"
    local status=0
    "$where/check_cuda" || status=$?
    if [ $status -eq 77 ]; then
        echo "gpu-check: everything is built, and there is no GPU here: nothing was run on one, nothing is measured"
        exit 77
    fi
    [ $status -eq 0 ] || exit 1
    on_ranks
    [ "$where" = "$out/emu" ] || sanitized
    say "benchmark"
    "$where/bench_cuda" | tee "$where/table.md"
    {
        sed '/<!-- table -->/q' docs/gpu.md
        printf '\nMeasured on %s by `./dev gpu-check`' "$(date -u +%Y-%m-%d)"
        printf ', %s.\n\n' "$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>/dev/null | head -1 || echo emulated)"
        cat "$where/table.md"
    } >"$where/gpu.md"
    cp "$where/gpu.md" "$2"
    say "the table is in $2"
}

if [ -n "$emulate" ]; then
    say "over the emulator"
    n_gpu=2
    everything "$out/emu" "$out/emulated.md"
fi
n_gpu=$(nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true)
everything "$out" docs/gpu.md
