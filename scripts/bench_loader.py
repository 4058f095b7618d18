#!/usr/bin/env python3
"""Images decoded and preprocessed per second, beside Pillow with the image processor of transformers: same JPEG files, same threads, in turns.

Usage: python3 scripts/bench_loader.py [--images N] [--rounds N] [--threads 1 2] [--size 640x480] [--folder FOLDER]
       (needs Pillow, numpy and transformers 4.57; builds and runs the example `loader_speed` of crates/data)

The pictures are drawn once with detail at every scale, so that a file of 640 x 480 has about the size of one of COCO. Both sides open each
file, decode it, convert it to RGB, resize it to 224 x 224 by cubic interpolation and normalise it with CLIP's means. On more than one thread
the peer may take threads or processes, whichever is faster; its processes are started before the clock. The median of the rounds counts.
CPU time is that of the peer's threads, and of our whole process; on a machine with other work it is the fairer. Ratios above 1 mean that ressa is faster.
"""

import argparse
import importlib.util
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
NEEDED = {"PIL": "Pillow", "numpy": "numpy", "transformers": "transformers==4.57.6"}
processor = None  # one per process


def draw(folder, count, size):
    """JPEG files with as much detail at every scale as photographs have."""
    import numpy
    from PIL import Image

    random = numpy.random.default_rng(5)
    width, height = size
    for number in range(count):
        picture = numpy.full((height, width, 3), 110.0)
        cell = 256
        while cell >= 1:
            small = random.normal(0, 5 + cell**0.6, (height // cell + 2, width // cell + 2, 3))
            grown = [Image.fromarray(small[..., c].astype("float32")).resize(size, Image.BICUBIC) for c in range(3)]
            picture += numpy.stack([numpy.asarray(channel) for channel in grown], axis=-1)
            cell //= 2
        Image.fromarray(picture.clip(0, 255).astype("uint8")).save(folder / f"{number:06d}.jpg", quality=96)


def prepare():
    global processor
    from transformers import BlipImageProcessor

    processor = BlipImageProcessor(size=dict(height=224, width=224))


def load(path):
    from PIL import Image

    with Image.open(path) as image:
        return processor(image.convert("RGB"), return_tensors="np")["pixel_values"].shape


def timed(work):
    """Wall and CPU seconds of this process."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def theirs(paths, threads):
    """Wall seconds for all files and the way of dividing them that took the least, and CPU seconds of its threads."""
    prepare()
    load(paths[0])
    if threads == 1:
        wall, cpu = timed(lambda: [load(path) for path in paths])
        return wall, cpu, "one thread"
    with ThreadPoolExecutor(threads) as pool:
        wall, cpu = timed(lambda: list(pool.map(load, paths)))
    with ProcessPoolExecutor(threads, initializer=prepare) as pool:
        list(pool.map(load, paths[: 2 * threads]))
        chunk = max(1, len(paths) // (8 * threads))
        divided, _ = timed(lambda: list(pool.map(load, paths, chunksize=chunk)))
    return (wall, cpu, "threads") if wall < divided else (divided, cpu, "processes")


def ours(folder, threads, images):
    program = TARGET / "release" / "examples" / "loader_speed"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run([program, folder, str(threads)], check=True, capture_output=True, text=True).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"images (\d+) seconds ([\d.]+)", said)
    if found is None or int(found[1]) != images:
        sys.exit(f"`loader_speed` said {said!r}, not `images {images} seconds S`")
    return float(found[2]), after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compare(folder, paths, threads, rounds):
    pairs = [(theirs(paths, threads), ours(folder, threads, len(paths))) for _ in range(rounds)]
    rate = lambda side: len(paths) / statistics.median(pair[side][0] for pair in pairs)
    ratio = lambda at: statistics.median(peer[at] / own[at] for peer, own in pairs)
    print(
        f"  {threads} thread(s)   Pillow + transformers {rate(0):8.1f} images/s ({pairs[-1][0][2]})   ressa {rate(1):8.1f} images/s"
        f"   {ratio(0):6.2f} x wall, {ratio(1):6.2f} x CPU", flush=True,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--size", default="640x480", help="pixels of a drawn picture")
    parser.add_argument("--folder", type=Path, help="a folder of JPEG files to read instead")
    arguments = parser.parse_args()
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"this Python ({sys.executable}) has no {', '.join(missing)}; install with: pip install {' '.join(missing)}")
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # the threads are those that divide the files
    build = ["cargo", "build", "--release", "--quiet", "-p", "ressa-data", "--example", "loader_speed"]
    if subprocess.run(build, cwd=ROOT).returncode != 0:
        sys.exit("the Rust side does not build: `crates/data/examples/loader_speed.rs` is needed")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        if arguments.folder is None:
            draw(folder, arguments.images, tuple(map(int, arguments.size.split("x"))))
        paths = sorted(folder.glob("*.jpg"))
        if not paths:
            sys.exit(f"`{folder}` holds no file that ends in .jpg")
        mean = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        print(f"{len(paths)} JPEG files of {mean:.0f} kB on average, decoded and preprocessed to 224 x 224; medians of {arguments.rounds} rounds")
        for threads in arguments.threads:
            compare(folder, paths, threads, arguments.rounds)


if __name__ == "__main__":
    main()
