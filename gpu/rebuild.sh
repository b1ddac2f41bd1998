#!/usr/bin/env bash
# Builds what gpu/kit/ carries on a machine that has nvcc and g++ alone, for where the carried programs do not start:
#   gpu/rebuild.sh FOLDER     FOLDER/include: the headers of Node's addons, from the kit; fills FOLDER/bin and FOLDER/package
# The flags are those of CMakeLists.txt, native/ops/cpu/levels.cmake and native/ops/cuda/cuda.cmake. ARCHITECTURE: of nvcc's -arch;
# without it, this machine's device. JOBS: compilers at a time.
set -eu
cd "$(dirname "$0")/.."
[ $# = 1 ] || { echo "usage: gpu/rebuild.sh FOLDER" >&2; exit 2; }
mkdir -p "$1/objects" "$1/bin" "$1/package/build/Release"
folder=$(cd "$1" && pwd)
for program in nvcc g++ ar; do
  command -v "$program" >/dev/null || { echo "gpu/rebuild.sh: $program was not found" >&2; exit 1; }
done
architecture=${ARCHITECTURE:-native}
jobs=${JOBS:-$(nproc)}
objects=$folder/objects

common="-std=c++20 -O3 -DNDEBUG -fPIC -fvisibility=hidden -fvisibility-inlines-hidden -ffp-contract=off -Inative"
level="-fno-math-errno -fno-trapping-math"
avx2="-mavx2 -mfma -mf16c"
avx512="$avx2 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mprefer-vector-width=512"
levels="-DMINIGPT4_LEVEL_AVX2 -DMINIGPT4_LEVEL_AVX512"
tests="-O1 -Itest/native -Itest/gpu"
addon="-I$folder/include -DNAPI_VERSION=8 -DNODE_ADDON_API_CPP_EXCEPTIONS -DNODE_ADDON_API_ENABLE_TYPE_CHECK_ON_AS
  -DNODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS"
cuda="-std=c++20 -O3 -DNDEBUG -fmad=false --expt-relaxed-constexpr -arch=$architecture -Inative
  -Xcompiler=-fPIC,-ffp-contract=off,-fvisibility=hidden,-fvisibility-inlines-hidden"

# One command a line: the slowest first. compile SET COMPILER FLAGS FILE…
compile() {
  local set=$1 command=$2 file
  shift 2
  for file in "$@"; do
    echo "${command//$'\n'/ } -c $file -o $objects/$set-$(echo "$file" | tr '/' '_').o"
  done
}
{
  compile kernels "nvcc $cuda" native/ops/cuda/*.cu
  compile conformance "nvcc $cuda" gpu/conformance/conformance.cu
  compile library "g++ $common $level $avx512 $levels" native/ops/cpu/levels/avx512.cpp
  compile library "g++ $common $level $avx2 $levels" native/ops/cpu/levels/avx2.cpp
  compile library "g++ $common $level $levels" native/ops/cpu/levels/scalar.cpp
  compile addon "g++ $common $addon" native/addon/*.cpp
  compile library "g++ $common $levels" native/core/*.cpp native/ops/*.cpp native/ops/cpu/*.cpp native/text/*.cpp \
    native/image/*.cpp native/models/*.cpp native/engine/*.cpp native/train/*.cpp native/collective/collective.cpp
  compile plugin "g++ $common" native/ops/cuda/plugin.cpp
  compile bench "g++ $common -Igpu/bench" gpu/bench/bench.cpp gpu/bench/random_weights.cpp
  compile program "g++ $common -Igpu/bench" gpu/bench/ops_bench.cpp gpu/bench/llama_bench.cpp gpu/bench/counted_kernels.cpp
  compile tests "g++ $common $tests" test/native/main.cpp test/native/ops_case.cpp test/gpu/device_case.cpp \
    $(find test/gpu -maxdepth 1 -name '*_test.cpp' ! -name 'simt_*') $(find test/gpu -maxdepth 1 -name '*_case.cpp' ! -name device_case.cpp)
} >"$folder/commands"
xargs -P "$jobs" -d '\n' -n 1 bash -c <"$folder/commands"

library=$objects/libminigpt4_native.a
rm -f "$library"
ar rcs "$library" "$objects"/library-*.o
link="-lpthread -ldl"
plugin="-shared -Xcompiler=-static-libstdc++ -Xlinker=--version-script=native/ops/cuda/exports.map -Xlinker=--gc-sections"
# shellcheck disable=SC2086 # flags are words
{
  nvcc -arch="$architecture" $plugin -o "$folder/package/build/Release/libminigpt4_cuda.so" "$objects"/kernels-*.o \
    "$objects"/plugin-*.o "$objects"/library-native_core_dtype.cpp.o "$objects"/library-native_core_thread_pool.cpp.o $link
  g++ -shared -static-libstdc++ -Wl,--version-script=native/addon/exports.map -Wl,--gc-sections \
    -o "$folder/package/build/Release/minigpt4.node" "$objects"/addon-*.o "$library" $link
  for name in ops_bench llama_bench; do
    g++ -static-libstdc++ -o "$folder/bin/minigpt4_$name" "$objects/program-gpu_bench_$name.cpp.o" "$objects"/bench-*.o \
      "$library" $link
  done
  nvcc -arch="$architecture" -o "$folder/bin/minigpt4_counted_kernels_cuda" \
    "$objects"/program-gpu_bench_counted_kernels.cpp.o "$objects"/bench-*.o "$objects"/kernels-*.o "$library" $link
  nvcc -arch="$architecture" -o "$folder/bin/minigpt4_gpu_tests_cuda" "$objects"/tests-*.o "$objects"/kernels-*.o \
    "$library" $link
  nvcc -arch="$architecture" -o "$folder/bin/minigpt4_conformance_cuda" "$objects"/conformance-*.o
}
echo "built in $folder"
