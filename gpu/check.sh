#!/usr/bin/env bash
# Everything that only a GPU can say about the CUDA backend, in one run of less than ten minutes: whether each instruction's wrapper
# does what the emulator says, whether the kernels pass the tests that they pass there, what the sanitizers find, whether a
# program in Node gets the CPU's answers, and how near to its floor each op comes, beside torch.
#
#   npm run gpu:kit && gpu/check.sh [FOLDER]     FOLDER: for the record and the logs, gpu/results without it
#   DRY=1 gpu/check.sh [FOLDER]                  the same steps on the emulator
#
# Needs nothing from a network: gpu/kit/, which `npm run gpu:kit` fills on another machine, has Node and all programs. Every step has
# its own limit, writes PASS, FAIL or skipped into one table, and never stops the rest. Never touches clocks, MIG or persistence.
#
#   ONLY=WORD                            only steps whose name has it (and what they need)
#   GPU_BIN=FOLDER, GPU_PLUGINS=FOLDER   of a dry run: the programs, and the emulator's plug-in; out/Release and build/Release without
set -u
cd "$(dirname "$0")/.." || exit 2
root=$PWD
dry=${DRY:-0}
only=${ONLY:-}
results=${1:-${OUT:-$root/gpu/results}}
mkdir -p "$results/logs" && results=$(cd "$results" && pwd) || exit 2
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
mkdir "$work/logs" "$work/steps"
kit=$root/gpu/kit
total=570 # seconds for all steps

if [ "$dry" = 1 ]; then
  device=simt
  bin=${GPU_BIN:-$root/out/Release}
  flavour=simt
  counted=$bin/minigpt4_counted_kernels_hooks
  node=$(command -v node)
  plugins=${GPU_PLUGINS:-$root/build/Release}
else
  device=cuda
  bin=$work/bin
  flavour=cuda
  counted=$bin/minigpt4_counted_kernels_cuda
  node=$work/node
  plugins=$work/package/build/Release
fi
package=$work/package
tests=$bin/minigpt4_gpu_tests_$flavour
conformance=$bin/minigpt4_conformance_$flavour
export MINIGPT4_PLUGINS=$plugins

# step NAME SECONDS FUNCTION [WORD…]: runs it under its limit; its output goes into a log of the step's name. beside: the same,
# while the next ones run.
number=100 # in the table's order
step() {
  number=$((number + 1))
  if wanted "$1"; then run_step "$number" "$@"; fi
}
beside() {
  number=$((number + 1))
  if wanted "$1"; then run_step "$number" "$@" & fi
}
wanted() {
  [ "$1" = unpack ] || [[ $1 == *"$only"* ]]
}
run_step() {
  local place=$1 name=$2 limit=$3 left=$((total - SECONDS)) began status verdict
  shift 3
  began=$(date +%s.%N)
  if [ "$left" -lt 5 ]; then
    verdict="FAIL (no time was left)"
    : >"$work/logs/$name"
  else
    [ "$limit" -le "$left" ] || limit=$left
    timeout -k 5 "$limit" bash -c '"$@"' step "$@" >"$work/logs/$name" 2>&1
    status=$?
    case $status in
      0) verdict=PASS ;;
      124 | 137) verdict="FAIL (over $limit s)" ;;
      77) verdict="skipped ($(tail -n 1 "$work/logs/$name"))" ;;
      *) verdict="FAIL ($status)" ;;
    esac
  fi
  printf '%s\t%s\t%s\n' "$name" "$verdict" "$(date +%s.%N | awk -v began="$began" '{printf "%.1f", $1 - began}')" \
    >"$work/steps/$place"
  printf '%-22s %s\n' "$name" "$verdict"
}
skip() { # the step is counted as skipped, with these words
  echo "$*"
  exit 77
}

machine() {
  uname -srm
  ldd --version 2>&1 | head -n 1
  nproc
  [ "$dry" = 1 ] && { echo "the emulator"; return; }
  nvcc --version | tail -n 2
  nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem --format=csv || return 1
  nvidia-smi
}

expand() { # ARCHIVE.xz: its contents on stdout
  if command -v xz >/dev/null; then
    xz -dc "$1"
  else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}

# Node, the programs and the package with the library's tests; a dry run makes the package from what is built here.
unpack() {
  if [ "$dry" = 1 ]; then
    "$node" gpu/kit.mjs --package "$package" --binaries "$root/build/Release" || return 1
  else
    [ -f "$kit/programs.tar.xz" ] || { echo "gpu/kit/ is empty: npm run gpu:kit fills it"; return 1; }
    expand "$kit/node.xz" >"$node" && chmod +x "$node" && expand "$kit/programs.tar.xz" | tar -x -C "$work" || return 1
  fi
  ln -sfn "$root/test/fixtures" "$package/tests/fixtures" && "$node" --version
}

# The carried programs start here, or are built here: nvcc, g++ and the checkout are enough for them.
programs() {
  if "$conformance" --help && "$bin/minigpt4_ops_bench" --help && "$bin/minigpt4_llama_bench" --help &&
    "$tests" "cuda: gelu" && "$node" -e "require('$package/build/Release/minigpt4.node')"; then
    return 0
  fi
  [ "$dry" = 1 ] && return 1
  echo "the carried programs do not start here; building them"
  bash gpu/rebuild.sh "$work" && "$conformance" --help && "$tests" "cuda: gelu"
}

check_conformance() {
  if [ "$dry" = 1 ]; then
    "$conformance" write "$work/conformance.txt" && "$conformance" compare "$work/conformance.txt"
  else
    "$conformance" compare "$kit/conformance.txt"
  fi
}

# A dry run takes some of the kernels' tests: all of them have run as tests.
kernels() {
  if [ "$dry" = 1 ]; then
    "$tests" "cuda: r" # rms_norm, rope, rows
  else
    "$tests"
  fi
}

families() { # of the kernels' tests, by the begin of their names
  printf 'cuda: %s\n' "rms_norm" "attention of all queries to" "products with quantized" "matmul with half weights" \
    "attention over pages" "attend_dx" "matmul_dx with" "sample is" "cross_entropy" "writing into" \
    "matmul with float32 weights" "layer_norm" "squared_sum" "rope" "embed" "matmul_dw" "a replay does"
}
# sanitizer TOOL SECONDS: family after family, as many as begin within so many seconds.
sanitizer() {
  local tool=$1 seconds=$2 failed=0 count=0 family command=("$tests")
  if [ "$dry" = 1 ]; then
    command=("$bin/minigpt4_gpu_tests_hooks") # the emulator's own checks
  else
    command -v compute-sanitizer >/dev/null || skip "compute-sanitizer is not installed"
    if compute-sanitizer "$tests" "cuda: gelu" 2>&1 | grep "Device not supported"; then
      skip "compute-sanitizer does not support this device"
    fi
    # tests ask for what must fail, too
    command=(compute-sanitizer --tool "$tool" --report-api-errors no --error-exitcode 9 "$tests")
  fi
  while read -r family; do
    if [ "$SECONDS" -ge "$seconds" ]; then break; fi
    echo "-- $family"
    "${command[@]}" "$family" </dev/null || failed=1
    count=$((count + 1))
  done < <(families)
  echo "$count of $(families | wc -l) families in $SECONDS s"
  return "$failed"
}

end_to_end() {
  MINIGPT4_TEST_DEVICE=$device "$node" "$package/tests/device.test.mjs"
}

# The peers' rates come first: floors are made of the copy and matrix rates of this very device.
peers() {
  [ "$dry" = 1 ] && skip "torch needs a GPU"
  python3 -c 'import torch' || skip "torch is not installed"
  python3 gpu/bench/peer.py | tee "$work/peers.jsonl"
  [ "${PIPESTATUS[0]}" = 0 ]
}
bench() { # PROGRAM NAME: its lines into a file of the name, with the rates that were measured
  local options=(--device "$device") rates
  rates=$(grep -s '"matrix":' "$work/peers.jsonl" |
    sed -E 's/.*"copy": ([0-9.e+]+), "matrix": ([0-9.e+]+).*/--copy \1 --matrix \2/')
  # shellcheck disable=SC2206 # four words
  [ -n "$rates" ] && options+=($rates)
  [ "$dry" = 1 ] && options+=(--tiny)
  "$bin/$1" "${options[@]}" | tee "$work/$2.jsonl"
  [ "${PIPESTATUS[0]}" = 0 ]
}

# Requests of memory by five ops' kernels, under Nsight Compute, beside the emulator's memory report.
counters() {
  local found=$work/counters.csv expected=$kit/counted.csv many
  if [ "$dry" = 1 ]; then
    expected=$found
    "$counted" >"$found" || return 1
  else
    command -v ncu >/dev/null || skip "ncu is not installed"
    many=$(sed -n 1p "$expected" | tr ',' '\n' | tr -d '"' | grep '__' | paste -sd ,)
    ncu --clock-control none --csv --page raw --metrics "$many,gpu__time_duration.sum" "$counted" >"$found" || {
      cat "$found"
      grep -q 'LibraryNotLoaded\|ERR_NVGPUCTRPERM' "$found" && skip "ncu cannot read this machine's counters"
      return 1
    }
    cat "$found"
  fi
  "$node" gpu/counters.mjs "$found" "$expected" "$work/counters.jsonl"
}
assembly() {
  [ "$dry" = 1 ] && skip "machine code is a GPU's"
  command -v cuobjdump >/dev/null || skip "cuobjdump is not installed"
  cuobjdump -sass "$package/build/Release/libminigpt4_cuda.so" >"$work/sass.txt" || return 1
  gzip -9c "$work/sass.txt" >"$results/logs/sass.txt.gz"
  # what must and what should not stand in it
  local instruction
  for instruction in HMMA IMMA IDP LDSM LDGSTS LDL STL; do
    printf '%-8s%s\n' "$instruction" "$(grep -c "\b$instruction\b" "$work/sass.txt")"
  done
  "$node" gpu/conformance/waits.mjs "$package/build/Release/libminigpt4_cuda.so"
}

for name in machine expand unpack programs check_conformance kernels families sanitizer end_to_end peers bench counters \
  assembly skip; do
  export -f "${name?}"
done
export dry root results work kit device bin tests conformance counted node package

step machine 20 machine
step unpack 60 unpack
step programs 200 programs
step conformance 20 check_conformance
# what is right or wrong may run side by side; what is timed may not
if [ "$dry" = 1 ]; then
  beside kernels 120 kernels
  beside sanitizer 120 sanitizer hooks 10
else
  beside kernels 150 kernels
  for tool in memcheck racecheck initcheck synccheck; do beside "sanitizer-$tool" 150 sanitizer "$tool" 100; done
fi
beside end-to-end 150 end_to_end
wait
step peers 60 peers
step ops 120 bench minigpt4_ops_bench ops
step steps 100 bench minigpt4_llama_bench steps
step counters 60 counters
step assembly 30 assembly

cat "$work"/steps/* >"$work/summary.tsv"
[ "$dry" = 1 ] || cp "$kit/kit.json" "$work" # which sources these are
for log in "$work"/logs/*; do printf '== %s\n' "${log##*/}" && cat "$log"; done >"$results/logs/all.txt"
card=$device
if [ "$dry" != 1 ]; then
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1 | tr '[:upper:] ' '[:lower:]-' |
    tr -cd 'a-z0-9-')
fi
record=$results/$(date -u +%Y-%m-%d)-${card:-cuda}.json
echo
if "$node" gpu/record.mjs "$work" "$record"; then echo "record: ${record#"$root"/}, logs: logs/all.txt beside it"; fi
echo
awk -F '\t' '{printf "%-22s %8s s  %s\n", $1, $3, $2}' "$work/summary.tsv"
! grep -q FAIL "$work/summary.tsv"
