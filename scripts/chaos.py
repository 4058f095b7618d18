#!/usr/bin/env python3
"""Kills sweeps with SIGKILL at random moments and proves that nothing is lost and nothing is done twice.

An undisturbed sweep gives the reference. Then the same sweep is started and killed (the coordinator, a worker, or all of them at the
same moment) until KILLS kills have hit; after each kill of a coordinator the same command is simply given again. At the end every file
of the report must have the same bytes as the reference, and no stage may have been published twice.

Usage: scripts/chaos.py [--kills N] [--seed N] [--worker FILE] [--keep]
"""

import argparse
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from runlog import published

ROOT = pathlib.Path(__file__).resolve().parent.parent
RESSA = ROOT / "target/release/ressa"
# Every kind of stage, on a model that trains in seconds.
EXPERIMENT = "chaos"
MACHINE = ["--device", "cpu", "--slots", "2"]


def command(results):
    return [str(RESSA), "sweep", EXPERIMENT, *MACHINE, "--results", str(results)]


def start(results):
    return subprocess.Popen(command(results), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def workers(coordinator):
    """Process ids of the coordinator's children."""
    found = []
    for status in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # ended meanwhile
        if int(fields[1]) == coordinator and fields[0] != "Z":
            found.append(int(status.parent.name))
    return found


def kill(pids):
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # ended meanwhile


def publications(results):
    return [record["key"] for record in published(results)]


def report(results):
    """Every rendered file by its path; the store, logs and locks are no part of it."""
    files = {}
    for path in sorted(results.rglob("*")):
        name = path.relative_to(results)
        if path.is_file() and name.parts[0] not in ("store", "logs", "live", "meet", "pilots", "sweep.lock"):
            files[str(name)] = path.read_bytes()
    return files


def finish(results):
    """Runs the sweep to its end. A stage whose worker was killed was recorded, and is tried again by itself."""
    done = subprocess.run(command(results), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"chaos: the sweep in {results} does not finish (exit {done.returncode}):\n{done.stdout}{done.stderr}")


def compare(reference, results):
    keys = publications(results)
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        sys.exit(f"chaos: published twice in {results}: {', '.join(twice)}")
    expected, found = report(reference), report(results)
    differing = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if differing:
        sys.exit(f"chaos: these files differ between {reference} and {results}:\n  " + "\n  ".join(differing))
    return len(keys), len(expected)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="keep the results folders")
    parser.add_argument("--worker", help="the worker program, where it does not lie beside ressa")
    options = parser.parse_args()
    if options.worker:
        MACHINE.extend(["--worker", options.worker])
    dice = random.Random(options.seed)
    base = pathlib.Path(tempfile.mkdtemp(prefix="ressa-chaos-"))

    reference = base / "undisturbed"
    begin = time.monotonic()
    finish(reference)
    wall = time.monotonic() - begin
    print(f"undisturbed: {wall:.1f} s, {len(publications(reference))} stages", flush=True)

    hits, rounds = 0, 0
    while hits < options.kills:
        rounds += 1
        results = base / f"killed-{rounds}"
        while hits < options.kills:
            sweep = start(results)
            # Long enough to get somewhere, short enough that most kills hit before the end.
            time.sleep(dice.uniform(0.1, 1.5 + wall / 6))
            if sweep.poll() is not None:
                break
            target = dice.choice(["coordinator", "worker", "all"])
            children = workers(sweep.pid)
            if target == "worker" and children:
                kill([dice.choice(children)])
                hits += 1
                time.sleep(dice.uniform(0.0, 1.0))
                # The coordinator must survive that; it is ended like a power cut, too.
                if sweep.poll() is None:
                    kill([sweep.pid])
            else:
                kill([sweep.pid] + (children if target == "all" else []))
                hits += 1
            sweep.wait()
        finish(results)
        stages, files = compare(reference, results)
        print(f"round {rounds}: {hits} kills so far, {stages} stages published once each, {files} files identical", flush=True)
    if options.keep:
        print(f"kept: {base}")
    else:
        shutil.rmtree(base)


if __name__ == "__main__":
    main()
