#!/usr/bin/env bash
# run.sh COMMAND...: runs a command with the stand-in's devices, for example
#   scripts/stand-in/run.sh target/release/ressa --results /tmp/r sweep experiments/shapes/smoke.yaml --device cuda:0
set -euo pipefail
lib=$("$(dirname "$0")/build.sh")
export LD_LIBRARY_PATH="$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
exec "$@"
