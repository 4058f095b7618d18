#!/usr/bin/env python3
"""Checks a GPU against the CPU and against its prediction: `make device-check`.

First the experiment experiments/shapes/device.yaml (every kind of stage, method, pattern, allocation, restoration and task) runs on the CPU and
on the device, in both families, and predictions, masks and certificates are compared. Kernels of a GPU round differently, so a mask may
differ where two weights are worth the same; the dense model's predictions must agree in nearly every item. Then stages of a published model
with random weights are timed on the device and printed beside what scripts/simulate.py predicts for it.

    scripts/device_check.py                    all of it; writes 8 GB to --work and removes nothing there
    scripts/device_check.py --only embedded    the comparison alone
    scripts/device_check.py --blocks 6 2       a published model with fewer blocks
    scripts/device_check.py --stand-in         with the device that is not there, to try this script

Exit codes: 0 all agrees; 1 something does not; 69 there is no such device.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import simulate
import stages

NO_DEVICE = 69
# Of the dense model's predictions, the share that must be the CPU's.
AGREEING = 0.95
# Stages that are timed: experiment, kind, what its class must hold, and the two sizes.
TIMED = [
    ("restoration", "prune vision", "wanda N:M", (16, 64)),
    ("restoration", "prune language", "wanda N:M", (16, 64)),
    ("methods", "prune vision", "sparsegpt N:M", (16, 64)),
    ("methods", "prune language", "sparsegpt N:M", (16, 64)),
    ("restoration", "adapt", "sparse distilled", (2, 10)),
    ("restoration", "evaluate gqa", "", (620, 2480)),
]


def probe(device, environment):
    """What the device's worker says of itself; None where there is no such device."""
    for program in ("ressa", "ressa-worker"):
        if not (stages.PROGRAMS / program).is_file():
            raise stages.Failed(f"`{stages.PROGRAMS / program}` is not built: `make device-check` builds it")
    command = [stages.PROGRAMS / "ressa-worker", "probe", "--device", device]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
    return (json.loads(done.stdout), "") if done.returncode == 0 else (None, done.stderr.strip())


def sweep(results, device, environment, preset):
    """Runs the device experiment and gives its stages by key."""
    command = [stages.PROGRAMS / "ressa", "--results", results, "--quiet", "sweep", "device", f"model.preset={preset}", "--device", device]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env={**os.environ, **environment}, cwd=stages.ROOT)
    if done.returncode not in (0, 100):
        raise stages.Failed(f"sweep on {device}: {done.stderr.strip()[-800:]}")
    found = {}
    for manifest in (results / "store").glob("[0-9a-f][0-9a-f]/*/manifest.json"):
        found[manifest.parent.name] = (json.loads(manifest.read_text()), manifest.parent)
    failures = [line for line in done.stdout.splitlines() + done.stderr.splitlines() if line.startswith("failed:")]
    return found, failures


def lines(folder):
    path = folder / "predictions.jsonl"
    return path.read_text().splitlines() if path.exists() else []


def embedded(device, environment):
    """Compares the device with the CPU; True where all is well."""
    good = True
    for preset in ("shapes-flant5", "shapes-vicuna"):
        with tempfile.TemporaryDirectory() as folder:
            here, _ = sweep(Path(folder) / "cpu", "cpu", {}, preset)
            there, failures = sweep(Path(folder) / "device", device, environment, preset)
            missing = sorted({here[key][0]["kind"] for key in here.keys() - there.keys()})
            for line in failures:
                print(f"  {line.split(chr(92) + 'nException')[0][:300]}")
            if missing:
                print(f"  {preset}: stages that the device did not finish: {', '.join(missing)}")
                good = False
            total, same, dense_total, dense_same, masks, masks_same = 0, 0, 0, 0, 0, 0
            for key in here.keys() & there.keys():
                (manifest, one), (_, two) = here[key], there[key]
                if manifest["kind"] == "evaluate":
                    pairs = list(zip(lines(one), lines(two), strict=True))
                    equal = sum(a == b for a, b in pairs)
                    total, same = total + len(pairs), same + equal
                    if not manifest["inputs"].get("masks") and not manifest["inputs"].get("merge"):
                        dense_total, dense_same = dense_total + len(pairs), dense_same + equal
                if manifest["kind"] == "prune":
                    masks += 1
                    masks_same += (one / "masks.safetensors").read_bytes() == (two / "masks.safetensors").read_bytes()
            agree = dense_same >= AGREEING * dense_total
            good &= agree
            print(f"  {preset}: {len(there)} of {len(here)} stages; predictions equal {same} of {total}, dense {dense_same} of {dense_total}"
                  f"{'' if agree else ' (too few)'}; masks equal to the bit {masks_same} of {masks}")
    return good


def of_kind(model, experiment, what, how):
    """A stage of an experiment by its class."""
    for asked in stages.stages_of(experiment):
        if asked["stage"]["stage"] == "dense":
            continue
        found = simulate.cost_class(asked["stage"])
        if found[0].startswith(what) and how in found[1]:
            return asked["stage"]
    raise stages.Failed(f"{experiment} has no stage `{what} {how}`")


def timed(bench, stage, sizes, worker):
    """Seconds on the device for each of a stage's units."""
    seconds = []
    for size in sizes:
        stages.clear(worker.store)
        asked = bench.asked(simulate.resized(stage, size))
        seconds.append(worker.execute(asked))
    return (seconds[1] - seconds[0]) / (sizes[1] - sizes[0])


def published(options, environment, card):
    """Times stages of a published model and prints them beside their predictions."""
    model = stages.MODELS["flan-t5-xl"]
    blocks = tuple(options.blocks or model.blocks)
    work = options.work.resolve()
    shapes = simulate.Bench(work, model, blocks)
    real = simulate.Bench(work / "random", model, blocks, random=True)
    worker = stages.Worker(real.folder / "measured", options.device, environment, shipped=(real.folder / "store",))
    rows = []
    for experiment, what, how, sizes in TIMED:
        stage = of_kind(model, experiment, what, how)
        counts = [shapes.measure(simulate.resized(stage, size)) for size in sizes]
        expected = (counts[1].seconds[card] - counts[0].seconds[card]) / (sizes[1] - sizes[0])
        found = timed(real, stage, sizes, worker)
        size = simulate.size_of(stage)
        rows.append([what, how, f"{size:,}", f"{1000 * expected:.3g} ms", f"{1000 * found:.3g} ms", f"{found / expected:.2f}",
                     simulate.duration(expected * size), simulate.duration(found * size)])
    print(f"\n{model.name} with {blocks[0]} + {blocks[1]} blocks and random weights, bf16; predicted for {card}\n")
    simulate.table(["stage", "", "size", "predicted each", "measured each", "ratio", "predicted", "measured"], rows, False)


def card_of(name):
    """The card of experiments/devices.yaml that a device's name is of; the first one where none is."""
    known = list(stages.cards())
    found = [card for card in known if card.removeprefix("rtx-").split("-")[0] in name.lower()]
    if not found:
        print(f"  `{name}` is no card of experiments/devices.yaml: compared with the prediction for {known[0]}, --card names another")
    return (found or known)[0]


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--device", default="cuda:0")
    arguments.add_argument("--card", choices=stages.cards(), help="whose prediction is printed [default: by the device's name]")
    arguments.add_argument("--only", choices=["embedded", "published"])
    arguments.add_argument("--blocks", type=int, nargs=2, metavar=("VISION", "LANGUAGE"))
    arguments.add_argument("--stand-in", action="store_true", help="try this script on a device that is not there")
    arguments.add_argument("--work", type=Path, default=stages.TARGET / "device-check")
    options = arguments.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    environment = {}
    if options.stand_in:
        environment = stages.stand_in(options.work / "report.json", shapes=False)
    found, reason = probe(options.device, environment)
    if found is None:
        print(f"device-check: there is no `{options.device}` here ({reason.removeprefix('ressa-worker: ')}); nothing was checked")
        return NO_DEVICE
    name = options.device
    if shutil.which("nvidia-smi") and not options.stand_in:
        name = stages.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]).splitlines()[0]
    print(f"{name}, libtorch {found['libtorch']}", flush=True)
    good = options.only == "published" or embedded(options.device, environment)
    if options.only != "embedded":
        published(options, environment, options.card or card_of(name))
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except stages.Failed as failure:
        sys.exit(f"device-check: {failure}")
