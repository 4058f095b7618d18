#!/usr/bin/env python3
"""Disturbs a sweep on four Slurm nodes and proves that nothing is lost and nothing is done twice.

An undisturbed sweep on this machine alone gives the reference. Then the same sweep runs on a Slurm cluster made for this (cluster.py),
round after round, until EVENTS events have happened to it, chosen by dice:

    worker       SIGKILL to a worker
    pilot        SIGKILL to a pilot with its workers
    coordinator  SIGKILL to the coordinator; the same command is given again
    freeze       a pilot and its workers stand still for longer than the lease, then go on: a zombie
    node         SIGKILL to a node's slurmd and the node set down: Slurm starts its jobs elsewhere while the old ones still run
    requeue      `scontrol requeue`
    time         the time limit of a running job cut short; it is announced, saved, given back
    preempt      a job of the partition `main` takes the node of one of ours, which run in `low`
    disk         the results folder full for some seconds (where this user may mount one in memory)

At the end of each round every file of the report must have the same bytes as the reference, no stage may have been published twice, and the
output of every attempt that came too late must have been kept and compared.

Usage: scripts/slurm/chaos.py [--events N] [--seed N] [--experiment NAME] [--keep]      exit code 69: Slurm cannot be had here
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import chaos  # noqa: E402
import runlog  # noqa: E402
from cluster import Cluster  # noqa: E402

LEASE = 6
NODES = ["n1", "n2", "n3", "n4"]
PROFILE = """\
engine: slurm
defaults:
  partition: low
  cpus: 2
  mem: 2G
  time: 30min
  workers: 1
  max-jobs: 4
  work-per-job: 1s
  signal: USR2@30
bad-node: { failures: 1000, faster-than: 1s }
"""
DISK = "120m"
EVENTS = ["worker", "pilot", "coordinator", "freeze", "node", "requeue", "time", "preempt", "disk"]


class Round:
    """A sweep on the cluster, its results folder and what happens to them."""

    def __init__(self, cluster, results, options, dice):
        self.cluster, self.results, self.options, self.dice = cluster, results, options, dice
        self.profile = results.parent / "profile.yaml"
        self.profile.write_text(PROFILE)
        self.sweep = None
        self.frozen, self.down = [], {}
        results.mkdir()
        self.is_small = mounted(results)

    def start(self):
        command = [
            str(chaos.RESSA), "sweep", chaos.EXPERIMENT, "--results", str(self.results), "--device", "cpu",
            "--profile", str(self.profile), "--lease", str(LEASE), "--retries", "50",
        ]
        environment = {**os.environ, "PATH": f"{self.cluster.bin}:{os.environ['PATH']}", "SLURM_CONF": str(self.cluster.conf)}
        log = (self.results.parent / f"{self.results.name}.log").open("a")
        self.sweep = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=chaos.ROOT)

    def is_over(self):
        """Whether the sweep has ended well. One that ended otherwise is given again."""
        code = self.sweep.poll()
        if code is None:
            return False
        if code == 0:
            return True
        self.start()
        return False

    # What is there

    def pilots(self):
        """Process ids of our pilots by job, and of their workers."""
        found = collections.defaultdict(list)
        mark = f"SLURM_CONF={self.cluster.conf}".encode()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
                environment = dict(line.split(b"=", 1) for line in (entry / "environ").read_bytes().split(b"\0") if b"=" in line)
            except OSError:
                continue  # ended meanwhile
            if mark.split(b"=")[1] != environment.get(b"SLURM_CONF") or b"SLURM_JOB_ID" not in environment:
                continue
            name = os.path.basename(words[0].decode(errors="replace"))
            if name in ("ressa", "ressa-worker"):
                job = environment[b"SLURM_JOB_ID"].decode()
                node = environment.get(b"SLURMD_NODENAME", b"").decode()
                found[job].append((name, int(entry.name), node))
        return found

    def running(self):
        """Ids of our jobs that run, with their nodes."""
        listed = self.cluster.ask("squeue", "--noheader", "--states=RUNNING", "--partition=low", "--format=%A %N").stdout
        return [line.split() for line in listed.splitlines() if len(line.split()) == 2]

    # What happens

    def happens(self, event):
        """Whether the event found something to happen to."""
        return getattr(self, event)()

    def worker(self):
        return self.kill_some("ressa-worker")

    def pilot(self):
        everything = self.pilots()
        if not everything:
            return False
        chaos.kill([pid for _, pid, _ in everything[self.dice.choice(sorted(everything))]])
        return True

    def kill_some(self, program):
        pids = [pid for processes in self.pilots().values() for name, pid, _ in processes if name == program]
        if not pids:
            return False
        chaos.kill([self.dice.choice(sorted(pids))])
        return True

    def coordinator(self):
        if self.sweep.poll() is not None:
            return False
        chaos.kill([self.sweep.pid])
        self.sweep.wait()
        time.sleep(self.dice.uniform(0.0, 2.0))
        self.start()
        return True

    def freeze(self):
        everything = self.pilots()
        if not everything:
            return False
        pids = [pid for _, pid, _ in everything[self.dice.choice(sorted(everything))]]
        signal_all(pids, signal.SIGSTOP)
        self.frozen.append((time.monotonic() + LEASE * self.dice.uniform(1.2, 2.5), pids))
        return True

    def node(self):
        busy = sorted({node for processes in self.pilots().values() for _, _, node in processes if node and node not in self.down})
        if not busy or len(self.down) > 1:
            return False
        name = self.dice.choice(busy)
        daemon = self.cluster.pid(f"slurmd-{name}")
        if daemon is None:
            return False
        chaos.kill([daemon])
        self.cluster.ask("scontrol", "update", f"NodeName={name}", "State=DOWN", "Reason=chaos")
        self.down[name] = time.monotonic() + self.dice.uniform(15, 30)
        return True

    def requeue(self):
        running = self.running()
        if not running:
            return False
        return self.cluster.ask("scontrol", "requeue", self.dice.choice(running)[0]).returncode == 0

    def time(self):
        running = self.running()
        if not running:
            return False
        return self.cluster.ask("scontrol", "update", f"JobId={self.dice.choice(running)[0]}", "TimeLimit=1").returncode == 0

    def preempt(self):
        running = self.running()
        if not running:
            return False
        node = self.dice.choice(running)[1]
        words = ["--partition=main", "--cpus-per-task=2", f"--nodelist={node}", "--time=1", "--output=/dev/null", "--wrap=sleep 3"]
        return self.cluster.ask("sbatch", *words).returncode == 0

    def disk(self):
        if not self.is_small:
            return False
        filler = self.results / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(b"\0" * (1 << 20))
                    file.flush()
            except OSError:
                pass  # full
        time.sleep(self.dice.uniform(1.0, 4.0))
        filler.unlink()
        return True

    def goes_on(self):
        """Resumes what was stopped for a while."""
        now = time.monotonic()
        for until, pids in [one for one in self.frozen if one[0] <= now]:
            signal_all(pids, signal.SIGCONT)
            self.frozen.remove((until, pids))
        for name, until in list(self.down.items()):
            if until <= now:
                self.cluster.start_node(name)
                self.cluster.ask("scontrol", "update", f"NodeName={name}", "State=RESUME")
                del self.down[name]

    def end(self):
        """Lets everything go on and waits for the end of the sweep."""
        deadline = time.monotonic() + self.options.patience
        while True:
            self.goes_on()
            if self.is_over() and not self.frozen and not self.down:
                return
            if time.monotonic() > deadline:
                sys.exit(f"chaos: the sweep in {self.results} does not finish; see {self.results.parent / self.results.name}.log")
            time.sleep(0.5)


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass  # ended meanwhile


def mounted(results):
    """Puts the results folder on a small disk of its own, where this user may."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "ressa-chaos", str(results)]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def check_late(results):
    """Every attempt that came too late was compared, and its output kept."""
    found, compared = collections.Counter(), {}
    published = set(chaos.publications(results))
    for name, fields in runlog.events(results):
        if name != "superseded":
            continue
        comparison = fields["comparison"]
        word = comparison if isinstance(comparison, str) else next(iter(comparison))
        found[word] += 1
        compared[fields["key"], fields["attempt"]] = word
        if word == "differs":
            sys.exit(f"chaos: two attempts at {fields['key']} differ: {comparison}")
        if word != "unusable" and not (results / fields["kept"]).is_dir():
            sys.exit(f"chaos: the late output of {fields['key']} was not kept")
    alone = [key for (key, _), word in compared.items() if word == "alone" and key in published]
    if alone:
        sys.exit(f"chaos: never compared with what was published: {', '.join(alone)}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--experiment", default=chaos.EXPERIMENT)
    parser.add_argument("--patience", type=float, default=900, help="seconds that a round may take after its last event")
    parser.add_argument("--keep", action="store_true", help="keep the results folders")
    options = parser.parse_args()
    chaos.EXPERIMENT = options.experiment
    # Whoever ends this ends the cluster, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    base = pathlib.Path(tempfile.mkdtemp(prefix="ressa-slurm-chaos-"))
    cluster = Cluster(base / "cluster")
    started = subprocess.run([HERE / "cluster.py", "start", "--dir", str(cluster.folder)], stdout=subprocess.DEVNULL, check=False)
    if started.returncode != 0:
        shutil.rmtree(base, ignore_errors=True)
        sys.exit(started.returncode)
    try:
        run(cluster, base, options)
    finally:
        subprocess.run(["pkill", "--full", f"sweep .*--results {base}/"], check=False)
        cluster.stop()
        for folder in [path for path in base.glob("round-*") if path.is_mount()]:
            if options.keep:
                shutil.copytree(folder, base / f"kept-{folder.name}")
            subprocess.run(["umount", str(folder)], capture_output=True, check=False)
    if options.keep:
        print(f"kept: {base}")
    else:
        shutil.rmtree(base)


def run(cluster, base, options):
    dice = random.Random(options.seed)
    reference = base / "undisturbed"
    begin = time.monotonic()
    chaos.finish(reference)
    print(f"undisturbed: {time.monotonic() - begin:.1f} s, {len(chaos.publications(reference))} stages", flush=True)
    happened, late, rounds = collections.Counter(), collections.Counter(), 0
    while sum(happened.values()) < options.events:
        rounds += 1
        one = Round(cluster, base / f"round-{rounds}", options, dice)
        one.start()
        while sum(happened.values()) < options.events and not one.is_over():
            # Slurm takes its time to start what was ended; events must find something to happen to.
            time.sleep(dice.uniform(2.0, 16.0))
            one.goes_on()
            event = dice.choice(EVENTS)
            if not one.is_over() and one.happens(event):
                happened[event] += 1
        one.end()
        stages, files = chaos.compare(reference, one.results)
        late += check_late(one.results)
        print(
            f"round {rounds}: {sum(happened.values())} events so far, {stages} stages published once each, {files} files identical, "
            f"late so far: {dict(late) or 'none'}", flush=True,
        )
    missing = [event for event in EVENTS if not happened[event]]
    print("events: " + ", ".join(f"{event} {number}" for event, number in sorted(happened.items())))
    if missing:
        print(f"never happened: {', '.join(missing)}")


if __name__ == "__main__":
    main()
