#!/usr/bin/env bash
# Feeds every reader of this program with changes of sound inputs, in one process per target, and writes down what one does not survive.
#   scripts/fuzz.sh [--seconds N] [--seed N] [TARGET ...]
# Targets: see TARGETS in crates/testkit/tests/fuzz/targets.rs. An input that is found goes into crates/testkit/tests/corpus/TARGET once it is
# mended, where every `make test` repeats it.
set -eu
cd "$(dirname "$0")/.."
seconds=60
seed=
targets=()
while [ $# -gt 0 ]; do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    --seed) seed=$2; shift 2 ;;
    -*) sed -n '2,5p' "$0"; exit 2 ;;
    *) targets+=("$1"); shift ;;
  esac
done
scripts/setup.sh >/dev/null
if [ ${#targets[@]} = 0 ]; then
  mapfile -t targets < <(sed -n '/^pub const TARGETS/,/^];/s/^ *("\([a-z]*\)".*/\1/p' crates/testkit/tests/fuzz/targets.rs)
fi
cargo test --release --quiet -p ressa-testkit --test fuzz --no-run
# What one input leaves behind goes into memory where that is possible; nothing is kept.
[ -d /dev/shm ] && [ -w /dev/shm ] && export TMPDIR=/dev/shm
failed=0
for target in "${targets[@]}"; do
  FUZZ_TARGETS=$target FUZZ_SECONDS=$seconds FUZZ_SEED=$seed OMP_NUM_THREADS=1 \
    cargo test --release --quiet -p ressa-testkit --test fuzz -- --ignored --nocapture --test-threads 1 fuzz || failed=1
done
exit $failed
