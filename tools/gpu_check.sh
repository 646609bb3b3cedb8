#!/usr/bin/env bash
# ./dev gpu-check: builds the CUDA back end with nvcc and a C compiler alone, checks every kernel against float64
# and models of every family against the CPU back end on the GPU, on several ranks too, and measures.
# Needs nvcc, cuBLASLt and a C/C++ compiler; no CMake, no gRPC, no cmocka, no network. Ends with 0: all passed; 1: something failed;
# 77: built, and there is no GPU to run on. The table of docs/gpu.md is rewritten only by a run that passed.
#   --build   stop after building
#   --emulate also run the checks over the emulator
set -euo pipefail
cd "$(dirname "$0")/.."
out=build/gpu
cuda=${CUDA_HOME:-/usr/local/cuda}
nvcc=$(command -v nvcc || echo "$cuda/bin/nvcc")
cc=${CC:-$(command -v cc || command -v gcc || command -v clang || true)}
stop_at_build= emulate= table=()
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
cuda=$(cd "$(dirname "$nvcc")/.." && pwd)
lib=$cuda/lib64
[ -d "$lib" ] || lib=$cuda/lib
mkdir -p "$out"

# The GPU's own architecture, or those the product is built for.
cap=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -1 | tr -d . || true)
case $cap in
[0-9]*) arch=(-gencode "arch=compute_$cap,code=sm_$cap") ;;
*) cap='' arch=(-gencode arch=compute_80,code=sm_80 -gencode arch=compute_90,code=sm_90) ;;
esac

say "building into $out with $nvcc"
cflags=(-std=c17 -O2 -D_GNU_SOURCE -I. -fPIC -fvisibility=hidden)
objects=()
for f in base/err base/mem base/utf8 kernels/q4 kernels/cuda/{cuda,draw,ops,pack,ranks,nccl}; do
    "$cc" "${cflags[@]}" -c $f.c -o "$out/$(basename $f).o"
    objects+=("$out/$(basename $f).o")
done
for f in attn fp8 gemm moe reduce rows sample dev_cuda; do
    "$nvcc" -std=c++17 -O3 -I. -D_GNU_SOURCE -Xcompiler -fPIC,-fvisibility=hidden "${arch[@]}" -c kernels/cuda/$f.cu -o "$out/$f.cu.o"
    objects+=("$out/$f.cu.o")
done
link=(-L"$lib" -lcudart_static -lcublasLt -ldl -lrt -lpthread -lm -lstdc++ -Wl,-rpath,"$lib")
"$cc" "${cflags[@]}" -shared kernels/cuda/plugin_main.c "${objects[@]}" -o "$out/libweir_cuda.so" \
    "${link[@]}" -Wl,--exclude-libs,ALL
checks=(tests/unit/cuda/rig.c tests/unit/cuda/check_*.c)
# The checks want one hash of base/hash.c, whose other functions want OpenSSL and libxxhash: those are left for the linker to drop.
printf '%s\n' '#include "base/hash.h"' 'uint64_t weir_hash_mix(uint64_t hash, uint64_t value)' '{' \
    "$(sed -n '/^uint64_t weir_hash_mix/,/^}/p' base/hash.c | sed '1,2d')" >"$out/hash_mix.c"
"$cc" "${cflags[@]}" "${checks[@]}" "$out/hash_mix.c" "${objects[@]}" -o "$out/check_cuda" "${link[@]}"
"$cc" "${cflags[@]}" tests/unit/cuda/bench_cuda.c "${objects[@]}" -o "$out/bench_cuda" "${link[@]}"

# Whole models: the graph, the ranks and the CPU back end that they are compared with. What serves is not needed, nor any library.
# The hashes that base/hash.c has of OpenSSL and libxxhash tell models apart for others; here nobody asks for them.
{
    cat "$out/hash_mix.c"
    printf '%s\n' '#include <string.h>' 'void weir_sha256(const void *data, size_t len, uint8_t ret[32])' '{' \
        '    (void)data, (void)len;' '    memset(ret, 0, 32);' '}' \
        'uint64_t weir_hash64(const void *data, size_t len, uint64_t seed)' '{' '    (void)data;' '    return len ^ seed;' '}'
} >"$out/hash_none.c"
model_sources=(base/{arena,buf,clock,json_read,json_write,number,thread}.c kernels/cpu/{cpu,pack,product,rows,experts,attend,group,pool}.c
    kernels/cuda/plugin.c replica/model/*.c replica/parallel/*.c tests/support/{golden,tiny}_model.c "$out/hash_none.c")
cpu_ops=(generic)
case $(uname -m) in x86_64) cpu_ops+=(avx2 avx512 vnni amx) ;; esac
avx512='-mavx512f -mavx512bw -mavx512vl -mavx512dq'
model_objects=()
for f in "${model_sources[@]}"; do
    "$cc" "${cflags[@]}" -c "$f" -o "$out/m_$(basename "$f").o"
    model_objects+=("$out/m_$(basename "$f").o")
done
for ops in "${cpu_ops[@]}"; do
    case $ops in # as in kernels/CMakeLists.txt
    generic) machine='' ;;
    avx2) machine='-mavx2 -mfma -mf16c' ;;
    avx512) machine="$avx512 -mfma -mprefer-vector-width=512" ;;
    vnni) machine="$avx512 -mavx512vnni -mfma" ;;
    amx) machine="$avx512 -mavx512bf16 -mfma -mamx-tile -mamx-bf16 -mamx-int8" ;;
    esac
    # shellcheck disable=SC2086 # several options
    "$cc" "${cflags[@]}" -O3 -ffp-contract=fast -fno-math-errno -Wno-psabi $machine -c kernels/cpu/ops_$ops.c -o "$out/m_ops_$ops.o"
    model_objects+=("$out/m_ops_$ops.o")
done
"$cc" "${cflags[@]}" tests/unit/cuda/gpu_models.c "${model_objects[@]}" "${objects[@]}" -o "$out/gpu_models" "${link[@]}"
if [ -n "$emulate" ]; then
    say "the same checks over the emulator"
    for f in emu kernels dev_emu; do
        "${CXX:-g++}" -std=c++17 -O2 -ffp-contract=off -D_GNU_SOURCE -DWEIR_EMU -I. -c kernels/cuda/emu/$f.cc -o "$out/emu_$f.o"
    done
    for f in "${checks[@]}" "$out/hash_mix.c"; do "$cc" "${cflags[@]}" -c "$f" -o "$out/emu_$(basename "$f").o"; done
    "${CXX:-g++}" "$out"/emu_*.o "$out/err.o" "$out/mem.o" "$out/utf8.o" -o "$out/check_emu" -lpthread -lm
    "$out/check_emu"
    say "whole models over the emulator"
    for f in cuda draw ops pack ranks nccl q4; do table+=("$out/$f.o"); done
    "$cc" "${cflags[@]}" -c tests/unit/cuda/gpu_models.c -o "$out/m_main.o"
    "${CXX:-g++}" "$out/m_main.o" "${model_objects[@]}" "${table[@]}" "$out"/emu_{emu,kernels,dev_emu}.o "$out/err.o" "$out/mem.o" \
        "$out/utf8.o" -o "$out/models_emu" -lpthread -lm -ldl
    "$out/models_emu" 1
    "$out/models_emu" 2
fi
say "built: $out/libweir_cuda.so, check_cuda, gpu_models, bench_cuda"
[ -z "$stop_at_build" ] || exit 0

say "every kernel against float64"
status=0
"$out/check_cuda" || status=$?
if [ $status -eq 77 ]; then
    echo "gpu-check: everything is built, and there is no GPU here: nothing was run, nothing is measured"
    exit 77
fi
[ $status -eq 0 ] || exit 1
# Every wait for a device or a rank has a bound of its own but NCCL's opening: `timeout` ends that.
say "models of every family against the CPU"
timeout 600 "$out/gpu_models" 1
n_gpu=$(nvidia-smi --list-gpus 2>/dev/null | wc -l || echo 1)
for ranks in 2 4 8; do
    [ "$n_gpu" -ge $ranks ] || break
    say "the same on $ranks GPUs: NCCL where there is one, and the one-shot sum"
    timeout 600 "$out/gpu_models" $ranks
done
say "the same on 2 ranks of one GPU: sums in the process"
CUDA_VISIBLE_DEVICES=0 timeout 600 "$out/gpu_models" 2
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck; do
        say "compute-sanitizer $tool"
        compute-sanitizer --tool $tool --error-exitcode 1 "$out/check_cuda" linear
        compute-sanitizer --tool $tool --error-exitcode 1 "$out/check_cuda" sample
    done
else
    echo "compute-sanitizer is not here: skipped"
fi
say "benchmark"
"$out/bench_cuda" | tee "$out/table.md"
{
    sed '/<!-- table -->/q' docs/gpu.md
    printf '\nMeasured on %s by `./dev gpu-check`.\n\n' "$(date -u +%Y-%m-%d)"
    cat "$out/table.md"
} >"$out/gpu.md"
cp "$out/gpu.md" docs/gpu.md
say "docs/gpu.md has the table"
