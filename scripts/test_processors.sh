#!/usr/bin/env bash
# Runs the tests as three kinds of processors would compute them: `make test-processors [OPTIONS="-p ressa-prune"]`.
#
# Kernels are chosen by what the processor can do, and can be told to do with less. A kind that this processor cannot imitate is left out.
#   ATEN_CPU_CAPABILITY      libtorch's own kernels
#   ONEDNN_MAX_CPU_ISA       oneDNN's (half precision, convolutions)
#   MKL_ENABLE_INSTRUCTIONS  MKL's products, on Intel's processors
#   GLIBC_TUNABLES           sin, exp, ... of Rust code: without fused multiplication they round otherwise
set -euo pipefail
cd "$(dirname "$0")/.."

can() { grep -qw "$1" /proc/cpuinfo; }

tests() { # tests NAME VARIABLE=VALUE...: the whole suite in this environment
  printf '== as a processor with %s\n' "$1" >&2
  shift
  env "$@" cargo test --release --quiet --no-fail-fast "${options[@]}" || failed=1
}

options=("$@")
[ "$#" -gt 0 ] || options=(--workspace)
failed=0
tests "SSE alone" ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=SSE41 MKL_ENABLE_INSTRUCTIONS=SSE4_2 \
  GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX2,-FMA,-FMA4,-AVX512F
if can avx2; then
  tests "AVX2" ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 GLIBC_TUNABLES=glibc.cpu.hwcaps=-AVX512F
else
  echo "== AVX2 left out: this processor has none" >&2
fi
if can avx512f && can avx512bw && can avx512vl && can avx512dq; then
  tests "AVX-512" ATEN_CPU_CAPABILITY=avx512
else
  echo "== AVX-512 left out: this processor has none" >&2
fi
exit "$failed"
