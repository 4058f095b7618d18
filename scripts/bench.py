#!/usr/bin/env python3
"""Prints speed figures of ressa at the embedded scale: `make bench`.

Stages are measured by running them in a fresh results folder, alone on the machine if you leave it alone. What sharing saves is told for the
default study, from the recorded seconds of its stages. Figures are compared with the goals the project set itself; nothing is asserted.

    scripts/bench.py            everything but dense training (a few minutes)
    scripts/bench.py --dense    dense training too (about 5 minutes a model)
    scripts/bench.py --quick    start-up and planning only
    scripts/bench.py --scale    status of 100,000 stages and a report of 20,000 cells, with made-up results, and a sweep that finds all done
    scripts/bench.py --points   many pruning points from one statistics pass only
    scripts/bench.py --reconstruction  local reconstruction beside SparseLoRA on as many samples only
    scripts/bench.py --large    a folder of full size too (8 GB on disk for a while): opening, looking, one forward pass
    scripts/bench.py --million  log and coordinator at a million stages, workers side by side (about 40 minutes, 10 GB on disk for a while)

Against other programs, in the same run: transformers (scripts/bench_transformers.py) and the published pruning algorithms in plain PyTorch
(scripts/bench_pruning.py), where this Python has torch and transformers.
"""

import argparse
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from runlog import published

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RESSA = TARGET / "release" / "ressa"
STUDY = [ROOT / "experiments" / "shapes" / f"{name}.yaml" for name in ("allocation", "towers", "methods", "restoration")]


def ressa(*arguments, check=True, **options):
    return subprocess.run([str(RESSA), *map(str, arguments)], check=check, capture_output=True, text=True, **options)


def median_seconds(command, runs=15):
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak(command, runs=3):
    """Median wall seconds and largest peak memory in MB."""
    times, most = [], 0
    for _ in range(runs):
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise subprocess.CalledProcessError(process.returncode, command)
        times.append(time.perf_counter() - start)
        most = max(most, usage.ru_maxrss / 1000)
    return statistics.median(times), most


def row(what, value, goal=None, note=""):
    ratio = f"{value[0] / goal:6.2f} of {goal:g} {value[1]}" if goal else ""
    print(f"  {what:<52} {value[0]:9.3f} {value[1]:<6} {ratio:<22} {note}".rstrip())


def start_up():
    print("start-up and planning (wall seconds; medians)")
    reference = median_seconds(["/bin/true"])
    row("/bin/true, the reference", (1000 * reference, "ms"))
    help_time = median_seconds([RESSA, "--help"])
    row("ressa --help", (1000 * help_time, "ms"), 50, f"{help_time / reference:.1f} x /bin/true")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = grid(folder, VALUES, VALUES, 10)
        seconds, megabytes = peak([*program(folder), "plan", file])
        row("plan of a 100,000-cell grid", (seconds, "s"), 1)
        row("its peak memory", (megabytes, "MB"), 300)


# As much of a manifest as a program that reads no result asks for.
MANIFEST = {
    "kind": "evaluate", "version": 1, "configuration": {}, "inputs": {}, "result": {}, "files": {}, "seconds": 1.0, "cpu_seconds": 1.0,
    "environment": {},
}
VALUES = [round(0.001 * i, 3) for i in range(1, 101)]


def grid(folder, vision, language, seeds):
    """An experiment over sparsities, in a copy of the experiments."""
    experiments = folder / "experiments"
    if not experiments.exists():
        shutil.copytree(ROOT / "experiments", experiments)
    file = experiments / "shapes" / f"grid-{len(vision) * len(language) * seeds}.yaml"
    file.write_text(
        "extends: ../base/shapes-flant5.yaml\n"
        "axes:\n"
        f"  prune.vision.sparsity: {vision}\n"
        f"  prune.language.sparsity: {language}\n"
        f"replicate: {{ seed: 0..{seeds - 1} }}\n"
    )
    return file


def program(folder):
    return [RESSA, "--results", folder / "results", "--experiments", folder / "experiments"]


def scale():
    """Large stores of made-up results: what reading them costs."""
    print("\nscale, made-up results (wall seconds of whole processes)")
    worker = TARGET / "release" / "examples" / "fake-worker-of-cli"
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = grid(folder, VALUES[:20], VALUES, 10)
        plan = json.loads(subprocess.run([*map(str, program(folder)), "--json", "plan", str(file)], check=True, capture_output=True).stdout)
        keys = {key for run in plan["list"] for key in run["to-do"]}
        for key in keys:
            output = folder / "results" / "store" / key[:2] / key
            output.mkdir(parents=True)
            (output / "manifest.json").write_text(json.dumps({**MANIFEST, "key": key}))
        status = [*program(folder), "status", file]
        seconds, _ = peak(status, 1)
        row(f"first status of {len(keys):,} stages, all there", (seconds, "s"))
        seconds, _ = peak(status)
        row("the next, without a log", (seconds, "s"), 0.1)
        sweep = [*program(folder), "--worker", worker, "--quiet", "sweep", "--no-gate", "--no-report", file]
        subprocess.run([str(part) for part in sweep], check=True, stdout=subprocess.DEVNULL)
        seconds, _ = peak(status)
        row("after a sweep that found them", (seconds, "s"), 0.1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        file = grid(folder, VALUES[:1], VALUES[:30], 10)
        sweep = [*program(folder), "--worker", worker, "--quiet", "sweep", "--no-gate", file]
        subprocess.run([str(part) for part in sweep], check=True, stdout=subprocess.DEVNULL)
        seconds, _ = peak(sweep, 5)
        row("second sweep of 1,521 stages, with its report", (seconds, "s"), 0.5)
        seconds, _ = peak([*sweep, "--no-report"], 5)
        row("the same without a report", (seconds, "s"), 0.2)
    # In memory, where publishing does not wait for a disk.
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else TARGET) as folder:
        # Filling a store of 100,000 cells takes minutes.
        cells = 20_000
        speed = [str(TARGET / "release" / "examples" / "study_speed"), folder, str(cells)]
        subprocess.run(speed, check=True, stdout=subprocess.DEVNULL)
        shutil.rmtree(Path(folder) / "speed")
        told = json.loads(subprocess.run(speed, check=True, capture_output=True, text=True).stdout)
        row(f"report of {told['cells']:,} cells, {told['records']:,} records", (told["seconds"], "s"), 3 * cells / 100_000, "the goal is 3 s for 100,000")
        row("its CPU seconds", (told["cpu-seconds"], "s"), 3 * cells / 100_000)
        row("reading its manifests alone", (told["reading-seconds"], "s"))
        row("its peak memory", (told["peak-megabytes"], "MB"), 1000 * cells / 100_000, "the goal is 1 GB for 100,000")


def stages():
    print("\nstages, shapes-flant5 (CPU seconds of one worker; mean, and how many)")
    goals = {"prune": 3, "adapt": 30}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ressa("--results", folder, "--quiet", "sweep", STUDY[3], "replicate.seed=0")
        wall = time.perf_counter() - start
        by_kind = defaultdict(list)
        for line in published(folder):
            by_kind[f"{line['kind']} {line['detail']}".strip()].append(line["cpu_seconds"])
        for name, values in sorted(by_kind.items()):
            row(name, (statistics.mean(values), "s"), goals.get(name.split()[0]), f"{len(values)} stages, max {max(values):.2f}")
        row("one seed of the restoration study, wall", (wall, "s"))


def points():
    """What pruning costs when one pass of statistics serves many experiments: stages `statistics` and `prune` alone."""
    print("\none statistics pass, many points, shapes-flant5, both towers, dense calibration (CPU seconds of one worker)")
    methods = ["wanda", "ria", "sparsegpt", "dsnot"]
    ratios = [0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7]

    def sweep(folder, name, metrics, patterns):
        names = [pattern for pattern, _ in patterns]
        sparsities = [sparsity for _, sparsity in patterns]
        path = folder / "experiments" / "shapes" / f"{name}.yaml"
        path.write_text(
            "extends: ../base/shapes-flant5.yaml\n"
            "dense.gate: {}\n"
            "prune.calibration.propagate: dense\n"
            "evaluate: { tasks: [flickr30k], images: 2 }\n"
            f"axes: {{ prune.metric: {json.dumps(metrics)} }}\n"
            f"zip: {{ pattern: {{ prune.pattern: {json.dumps(names)}, prune.vision.sparsity: {sparsities}, prune.language.sparsity: {sparsities} }} }}\n"
            "replicate: { seed: 0..0 }\n"
        )
        results = folder / name
        ressa("--results", results, "--experiments", folder / "experiments", "--quiet", "sweep", "--slots", "1", path)
        lines = [line for line in published(results) if line["kind"] in ("statistics", "prune")]
        return sum(line["cpu_seconds"] for line in lines), len(lines)

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        shutil.copytree(ROOT / "experiments", folder / "experiments")
        single = {method: sweep(folder, f"one-{method}", [method], [("unstructured", 0.5)])[0] for method in methods}
        for method, seconds in single.items():
            row(f"one point, {method} 50 %", (seconds, "s"))
        patterns = [("unstructured", ratio) for ratio in ratios] + [("4:8", 0.5), ("2:4", 0.5)]
        seconds, count = sweep(folder, "many", methods, patterns)
        one = statistics.mean(single.values())
        row(f"{len(methods) * len(patterns)} points ({count} stages)", (seconds, "s"))
        row("many points over the mean of one", (seconds / one, "x"), 3)


def reconstruction():
    """Both see 128 texts about 32 images once; the image encoder's own reconstruction sees 128 images."""
    print("\nlocal reconstruction beside SparseLoRA on as many samples, shapes-flant5, 2:4 (CPU seconds of one worker)")
    steps = "steps=[prune, reconstruct, restore]"
    epoch = ["restore.method=sparse-lora", "restore.samples=32", "restore.batch=16", "restore.distill.weight=0"]
    base = ROOT / "experiments" / "shapes" / "smoke.yaml"
    with tempfile.TemporaryDirectory() as folder:
        ressa("--results", folder, "--quiet", "sweep", "--slots", "1", base, steps, *epoch)
        lines = list(published(folder))
        made = [json.loads(path.read_text()) for path in Path(folder, "store").glob("*/*/manifest.json")]
    windows = sum(len(found["result"]["errors"]) for found in made if found["kind"] == "reconstruct")
    seconds = {kind: sum(line["cpu_seconds"] for line in lines if line["kind"] == kind) for kind in ("reconstruct", "adapt")}
    row(f"{windows} blocks, one after the other", (seconds["reconstruct"], "s"))
    row("one epoch of SparseLoRA", (seconds["adapt"], "s"))
    row("one block over one epoch", (seconds["reconstruct"] / windows / seconds["adapt"], "x"), 1)


def sharing():
    print("\nsharing in the default study")
    with tempfile.TemporaryDirectory() as folder:
        plan = json.loads(ressa("--json", "--results", folder, "plan", *STUDY).stdout)
    known = {line["key"]: line["seconds"] for line in published(ROOT / "results")}
    runs = [run["to-do"] for run in plan["list"]]
    distinct = {key for run in runs for key in run}
    unshared = sum(len(run) for run in runs)
    row("stage executions with sharing", (float(len(distinct)), ""))
    row("stage executions, every run by itself", (float(unshared), ""), None, f"{unshared / len(distinct):.2f} x")
    if not distinct <= set(known) | {key for key in distinct if (ROOT / "experiments/store" / key[:2] / key).exists()}:
        print("  (seconds: run `make sweep` first, they are read from what it recorded)")
        return
    shared_seconds = sum(known.get(key, 0.0) for key in distinct)
    alone_seconds = sum(known.get(key, 0.0) for run in runs for key in run)
    row("stage seconds with sharing", (shared_seconds, "s"))
    row("stage seconds, every run by itself", (alone_seconds, "s"), None, f"{alone_seconds / shared_seconds:.2f} x")


def example(crate, name, *arguments):
    """The answer of an example of a crate, in a folder that goes with it."""
    subprocess.run(["cargo", "build", "--release", "--quiet", "-p", crate, "--examples"], check=True, cwd=ROOT)
    with tempfile.TemporaryDirectory(dir=TARGET, ignore_cleanup_errors=True) as folder:
        command = [str(TARGET / "release" / "examples" / name), folder, *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def million(stages, made, workers):
    """Log and coordinator with stages that have no tensors; the goals are those for a million stages."""
    print(f"\nlog and coordinator, {stages:,} stages without tensors (goals are for 1,000,000)")
    log = example("ressa-runlog", "log_speed", stages)
    row("two lines of the log", (log["write-two-lines-us"], "us"))
    row("writing the index", (log["write-index-s"], "s"), 3)
    row("reading the index", (log["read-with-index-s"], "s"), 3)
    row("reading the log alone", (log["read-log-alone-s"], "s"), 20)
    row("peak memory of these", (log["peak-mb"], "MB"), 2000)
    # One more than there are: everything is finished.
    start = example("ressa-sweep", "coordinator_speed", stages, stages + 6, 0, 0, 0)
    row("start of a sweep, everything finished", (start["start-s"], "s"), 10)
    row("its peak memory, graph included", (start["peak-mb"], "MB"), 2000, f"{start['graph-mb']:.0f} MB before it")
    busy = example("ressa-sweep", "coordinator_speed", stages, 0, made, 100, 10)
    row("coordinator's time per stage, 1,000 workers", (busy["coordinator-us-per-stage"] / 1000, "ms"), 1, f"{busy['made']} stages")
    row("its peak memory, graph included", (busy["peak-mb"], "MB"), 2000, f"{busy['graph-mb']:.0f} MB before it")

    print("\nthroughput (fake workers at pilots of this machine, 1,000 stages of one second; wall over ideal)")
    for count in workers:
        pilots, places = max(1, count // 16), min(16, count)
        run = example("ressa-sweep", "coordinator_speed", 2000, 0, 1000, pilots, places, 1)
        ideal = (run["made"] - 1) / count
        row(f"{count} workers", (run["wall-s"], "s"), None, f"{run['wall-s'] / ideal:.3f} x ideal")
    for count in (1, 4):
        run = example("ressa-sweep", "coordinator_speed", 2000, 0, 1000, 0, count)
        row(f"a stage of no time, {count} workers of the coordinator", (run["wall-us-per-stage"] / 1000, "ms"), None, "made to last on the disk")


def dense():
    print("\ndense training (wall seconds, two threads)")
    for preset, goal in (("shapes-flant5", 360), ("shapes-vicuna", 480)):
        with tempfile.TemporaryDirectory() as folder:
            experiments = Path(folder) / "experiments"
            shutil.copytree(ROOT / "experiments", experiments, ignore=shutil.ignore_patterns("store"))
            results = Path(folder) / "results"
            ressa("--results", results, "--experiments", experiments, "--quiet", "pretrain", preset)
            line = next(line for line in published(results) if line["kind"] == "dense")
            row(preset, (line["seconds"], "s"), goal, f"{line['cpu_seconds']:.0f} CPU seconds")


def comparisons():
    for script, needed in (("bench_transformers.py", "transformers"), ("bench_pruning.py", "torch")):
        print(f"\n{script}")
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec(needed) is None:
            print(f"  left out: this Python ({sys.executable}) has no torch 2.11 with {needed}; use one that has, or run the script by itself")
            continue
        sys.stdout.flush()
        subprocess.run([sys.executable, str(ROOT / "scripts" / script)], check=False)


def large():
    like = "instructblip-flan-t5-xl"
    print(f"\na random {like} folder (wall seconds of whole processes)")
    with tempfile.TemporaryDirectory(dir=ROOT / "target") as folder:
        model = Path(folder) / "model"
        start = time.perf_counter()
        written = json.loads(ressa("--json", "lab", "random-checkpoint", "--like", like, "--output", model).stdout)
        row(f"writing {written['bytes'] / 1e9:.2f} GB", (time.perf_counter() - start, "s"))
        row("inspect, zeros counted", (median_seconds([RESSA, "inspect", model], 3), "s"), 1)
        row("inspect --headers", (median_seconds([RESSA, "inspect", "--headers", model], 3), "s"))
        image = next(path for path in sorted((ROOT / "crates" / "data" / "tests").rglob("*.jpg")))
        requests = Path(folder) / "requests.json"
        requests.write_text(json.dumps([{"image": str(image), "prompt": "a photo of", "answer": "a dog"}]))
        start = time.perf_counter()
        peak = json.loads(ressa("--json", "lab", "stats", "--model", model, "--requests", requests, "--output", Path(folder) / "stats").stdout)
        row("one forward pass in float32, loading included", (time.perf_counter() - start, "s"))
        row("its peak memory over the weights", (peak["peak_memory_bytes"] / written["bytes"], "x"), 1.15)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dense", action="store_true", help="train the dense models too")
    parser.add_argument("--quick", action="store_true", help="start-up and planning only")
    parser.add_argument("--scale", action="store_true", help="large stores of made-up results only")
    parser.add_argument("--points", action="store_true", help="many pruning points from one statistics pass only")
    parser.add_argument("--reconstruction", action="store_true", help="local reconstruction beside SparseLoRA only")
    parser.add_argument("--million", action="store_true", help="log and coordinator at a million stages only")
    parser.add_argument("--large", action="store_true", help="a folder of full size too")
    arguments = parser.parse_args()
    if not RESSA.exists():
        sys.exit(f"{RESSA} is not there; run `make build` first")
    if arguments.points:
        return points()
    if arguments.reconstruction:
        return reconstruction()
    if arguments.scale:
        return scale()
    if arguments.million:
        return million(1_000_000, 20_000, (1, 4, 16, 64))
    start_up()
    if not arguments.quick:
        scale()
        stages()
        points()
        reconstruction()
        sharing()
        million(100_000, 5_000, (16, 64))
        comparisons()
    if arguments.large:
        large()
    if arguments.dense:
        dense()


if __name__ == "__main__":
    main()
