#!/usr/bin/env bash
# build.sh [LIBTORCH]: compiles the stand-in against a libtorch (default: the checkout's .libtorch) and prints a folder that holds this
# libtorch with the stand-in as its CUDA half: with it first in LD_LIBRARY_PATH, a program built with this libtorch has the stand-in's
# devices. Made once (20 s) below target/, again when a source or libtorch changes; several at a time wait for one another.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
torch=$(readlink -f "${1:-$root/.libtorch}") && [ -f "$torch/lib/libtorch_cpu.so" ] ||
  { echo "stand-in: no libtorch at \`${1:-$root/.libtorch}\`; run \`make setup\` first" >&2; exit 2; }

state=$(cat "$here"/*.h "$here"/*.cpp "$here/build.sh" && echo "$torch" && stat -c '%s %Y' "$torch/lib/libtorch_cpu.so" "$torch/lib/libc10.so")
target=${CARGO_TARGET_DIR:-target}
case $target in /*) ;; *) target=$root/$target ;; esac
home=$target/stand-in/$(sha256sum <<<"$state" | cut -c1-16)
lib=$home/torch/lib
if [ ! -e "$home/complete" ]; then
  mkdir -p "$home"
  exec 9>"$home/lock"
  flock 9
  if [ ! -e "$home/complete" ]; then
    mkdir -p "$lib"
    # The worker takes libtorch_cuda.so from beside the libtorch_cpu.so that it has loaded, and libtorch finds its companions from there.
    for file in "$torch"/lib/*.so*; do
      case ${file##*/} in libtorch_cuda*) ;; *) ln -sfn "$file" "$lib/${file##*/}" ;; esac
    done
    if [ -d "$torch/../nvidia" ]; then ln -sfn "$(readlink -f "$torch/../nvidia")" "$home/nvidia"; fi
    g++ -std=c++17 -O1 -Wall -shared -fPIC -isystem "$torch/include" -isystem "$torch/include/torch/csrc/api/include" \
      "$here/stand_in.cpp" -o "$lib/libtorch_cuda.so" -L"$torch/lib" -ltorch_cpu -lc10 >&2
    touch "$home/complete"
  fi
fi
echo "$lib"
