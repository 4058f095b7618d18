#!/usr/bin/env bash
# Finds or fetches libtorch 2.11 and points .libtorch at it. Idempotent: does nothing when .libtorch is good.
#
#   1. LIBTORCH, when set, must be a folder with include/ and lib/ of libtorch 2.11
#   2. else the torch 2.11 of the active virtual environment or of python3 is used
#   3. else the wheel is installed with pip into .torch/: in full where a GPU is present, slim elsewhere
set -euo pipefail
cd "$(dirname "$0")/.."

want=2.11.0
say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
need() { # need COMMAND WHY INSTALL-COMMAND
  command -v "$1" >/dev/null 2>&1 || die "\`$1\` is missing ($2); install it with: $3"
}

version_of() { # the torch version of a libtorch folder, empty when unknown
  if [ -f "$1/version.py" ]; then
    sed -n "s/^__version__ *= *['\"]\([0-9.]*\).*/\1/p" "$1/version.py"
  elif [ -f "$1/build-version" ]; then
    sed 's/+.*//' "$1/build-version"
  fi
}

usable() { # usable FOLDER: a libtorch of the wanted version?
  [ -f "$1/include/ATen/ATen.h" ] && [ -f "$1/lib/libtorch_cpu.so" ] && [ "$(version_of "$1")" = "$want" ]
}

need cargo "the Rust toolchain builds ressa" "see https://rustup.rs, or: apt-get install -y rustup && rustup default stable"
need g++ "the bindings to libtorch are C++" "apt-get install -y g++"

if [ -n "${LIBTORCH:-}" ]; then
  usable "$LIBTORCH" || die "LIBTORCH=\`$LIBTORCH\` is not libtorch $want (looked for include/ATen/ATen.h, lib/libtorch_cpu.so and version $want; found \`$(version_of "$LIBTORCH")\`); unset it to let setup fetch one"
  ln -sfn "$(cd "$LIBTORCH" && pwd)" .libtorch
  say "using LIBTORCH=$LIBTORCH"
  exit 0
fi

if usable .libtorch; then
  if [ -e /dev/nvidiactl ] && [ ! -f .libtorch/lib/libtorch_cuda.so ]; then
    say "there is a GPU, but .libtorch was set up for a CPU: remove .torch and .libtorch and run this again to use it"
  fi
  exit 0
fi

need python3 "libtorch comes as a Python wheel" "apt-get install -y python3 python3-pip"

found=$(for python in "${VIRTUAL_ENV:+$VIRTUAL_ENV/bin/python}" python3; do
  [ -n "$python" ] || continue
  "$python" - <<'PY' 2>/dev/null || true
import importlib.util, os
spec = importlib.util.find_spec("torch")
if spec and spec.origin:
    print(os.path.dirname(spec.origin))
PY
done | head -n 1)
if [ -n "$found" ] && usable "$found"; then
  ln -sfn "$found" .libtorch
  say "using the torch $want of Python at $found"
  exit 0
fi

python3 -m pip --version >/dev/null 2>&1 || die "python3 has no pip (needed once, to fetch libtorch); install it with: apt-get install -y python3-pip"
if ! usable .torch/torch; then
  rm -rf .torch .torch.partial
  if command -v nvidia-smi >/dev/null 2>&1 || [ -e /dev/nvidiactl ]; then
    say "fetching torch $want with its CUDA libraries into .torch/ (about 5 GB on disk, once)"
    wheels=("torch==$want")
  else
    say "fetching the CPU part of torch $want into .torch/ (1.2 GB on disk, once)"
    wheels=(--no-deps "torch==$want" nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85)
  fi
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
    --no-compile --target .torch.partial "${wheels[@]}" ||
    die "pip could not fetch torch $want; if this machine is offline, unpack libtorch $want elsewhere and set LIBTORCH to that folder"
  mv .torch.partial .torch # renamed only when complete, so an interrupted fetch starts over
fi
usable .torch/torch || die "the fetched torch in .torch/ is not $want; remove .torch and try again"
ln -sfn .torch/torch .libtorch
say "libtorch $want is ready (.libtorch)"
