#!/usr/bin/env python3
"""A Slurm cluster of several nodes on this machine, for tests: nothing is installed, no munge, no systemd, no cgroups.

    eval "$(scripts/slurm/cluster.py start)"    # fetches Debian's packages once, starts four nodes, prints what to export
    sinfo; sbatch --array=0-7 job.sh; ...
    scripts/slurm/cluster.py status             # nodes and jobs
    scripts/slurm/cluster.py stop               # ends jobs and daemons of this cluster and nothing else

Exit code 69 and one line on standard error: the packages cannot be had here (no Debian, no network), so whoever calls this skips.

Everything lies in one folder (--dir, by default ressa-slurm-UID in the folder for temporary files): `root` the unpacked packages,
which stay; `run` configuration, state, logs and pids, new at every start; `bin` the commands, each with its own environment, so that
PATH is all that needs to be exported. Two clusters may run at once from two folders.

Nodes n1, n2, ... have 2 CPUs, 8000 MB and 2 GPUs each, which are only counted (SLURM_GPUS_ON_NODE, no CUDA_VISIBLE_DEVICES); odd ones
have the feature `fast`, even ones `slow`. Partitions: `main` (default), `low` (jobs there are requeued when `main` needs the node; a
grace time of 4 s) and `short` (2 minutes at most).
"""

import argparse
import getpass
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

PACKAGES = ["slurmctld", "slurmd", "slurm-client", "slurm-wlm-basic-plugins", "libmunge2", "libhwloc15"]
UNAVAILABLE = 69
GPUS = 2
COMMANDS = ["sbatch", "squeue", "scontrol", "scancel", "sinfo", "srun", "sacct"]

CONFIGURATION = """\
ClusterName=ressa
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
AuthInfo=cred_expire=5
SlurmctldPort={port}
SlurmdPort={node_port}
PluginDir={plugins}
StateSaveLocation={run}/state
SlurmdSpoolDir={run}/spool-%n
SlurmctldPidFile={run}/slurmctld.pid
SlurmdPidFile={run}/slurmd-%n.pid
SlurmctldLogFile={run}/log/slurmctld.log
SlurmdLogFile={run}/log/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc={run}/log/jobcomp.txt
GresTypes=gpu
ReturnToService=2
MinJobAge=300
KillWait={kill_wait}
MaxArraySize={max_array}
SlurmdTimeout=20
{nodes}
PartitionName=main Nodes=ALL Default=YES PriorityTier=10 PreemptMode=OFF MaxTime=INFINITE State=UP
PartitionName=low Nodes=ALL PriorityTier=1 PreemptMode=REQUEUE GraceTime=4 MaxTime=INFINITE State=UP
PartitionName=short Nodes=ALL PriorityTier=5 PreemptMode=OFF MaxTime=2 State=UP
"""


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("action", choices=["start", "stop", "status", "node"])
    arguments.add_argument("what", nargs="*", help="of `node`: start NAME or kill NAME (SIGKILL to its slurmd; its jobs go on)")
    arguments.add_argument("--dir", type=pathlib.Path, help="folder of this cluster")
    arguments.add_argument("--nodes", type=int, default=4)
    arguments.add_argument("--kill-wait", type=int, default=5, help="seconds between SIGTERM and SIGKILL")
    arguments.add_argument("--max-array", type=int, default=1001)
    arguments.add_argument("--no-gpus", action="store_true")
    options = arguments.parse_args()
    folder = options.dir or pathlib.Path(tempfile.gettempdir()) / f"ressa-slurm-{os.getuid()}"
    cluster = Cluster(folder.absolute())
    if options.action == "start":
        start(cluster, options)
    elif options.action == "stop":
        cluster.stop()
    elif options.action == "status":
        status(cluster)
    else:
        node(cluster, options.what)


def start(cluster, options):
    if cluster.is_up():
        say("already running")
    else:
        cluster.fetch()
        cluster.start(options)
    print(cluster.exports())


def status(cluster):
    if not cluster.is_up():
        say("not running")
        sys.exit(1)
    for command in (["sinfo", "--Node", "--long"], ["squeue", "--array"]):
        print(cluster.ask(*command).stdout, end="")
    print(cluster.exports())


def node(cluster, what):
    match what:
        case ["start", name]:
            cluster.start_node(name)
        case ["kill", name]:
            kill(cluster.pid(f"slurmd-{name}"), signal.SIGKILL)
        case _:
            sys.exit("usage: cluster.py node start NAME | node kill NAME")


class Cluster:
    def __init__(self, folder):
        self.folder = folder
        self.root, self.run, self.bin = folder / "root", folder / "run", folder / "bin"
        self.conf = self.run / "slurm.conf"

    def libraries(self):
        return next((self.root / "usr/lib").glob("*-linux-gnu*"))

    def environment(self):
        libraries = self.libraries()
        path = f"{libraries}/slurm-wlm:{libraries}"
        return {**os.environ, "LD_LIBRARY_PATH": path, "SLURM_CONF": str(self.conf)}

    def exports(self):
        return f"export PATH={self.bin}:$PATH SLURM_CONF={self.conf}"

    def ask(self, *command):
        return subprocess.run([str(self.bin / command[0]), *command[1:]], capture_output=True, text=True, timeout=60)

    # Packages

    def fetch(self):
        """Downloads and unpacks the packages, without installing them."""
        if (self.root / "complete").exists():
            return
        if not (shutil.which("apt-get") and shutil.which("dpkg")):
            unavailable("no apt-get or dpkg")
        shutil.rmtree(self.root, ignore_errors=True)
        packages = self.folder / "packages"
        packages.mkdir(parents=True, exist_ok=True)
        say("fetching Debian's Slurm (4 MB)")
        fetched = subprocess.run(["apt-get", "download", *PACKAGES], cwd=packages, capture_output=True, text=True)
        if fetched.returncode != 0:
            unavailable(last_line(fetched.stderr))
        for package in sorted(packages.glob("*.deb")):
            unpacked = subprocess.run(["dpkg", "-x", package, self.root], capture_output=True, text=True)
            if unpacked.returncode != 0:
                unavailable(last_line(unpacked.stderr))
        # Slurm goes by the names of its programs (a daemon of another name ignores `Gres=`); Debian's alternatives would rename them.
        for program in (self.root / "usr/sbin").glob("*-wlm"):
            program.with_name(program.name.removesuffix("-wlm")).symlink_to(program.name)
        shutil.rmtree(packages)
        (self.root / "complete").touch()

    # Start

    def start(self, options):
        shutil.rmtree(self.run, ignore_errors=True)
        for part in ("state", "log"):
            (self.run / part).mkdir(parents=True)
        self.write_commands()
        ports = free_ports(options.nodes + 1)
        host = socket.gethostname().split(".")[0]
        names = [f"n{number}" for number in range(1, options.nodes + 1)]
        gpus = "" if options.no_gpus else f"Gres=gpu:{GPUS} "
        lines = [
            f"NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=2 RealMemory=8000 {gpus}"
            f"Features={'fast' if number % 2 == 0 else 'slow'} State=UNKNOWN"
            for number, (name, port) in enumerate(zip(names, ports[1:]))
        ]
        self.conf.write_text(CONFIGURATION.format(
            host=host, user=getpass.getuser(), port=ports[0], node_port=ports[1], plugins=self.libraries() / "slurm-wlm",
            run=self.run, nodes="\n".join(lines), kill_wait=options.kill_wait, max_array=options.max_array,
        ))
        if not options.no_gpus:
            # A GPU without a file is not counted; what the file is, nobody looks at.
            for number in range(GPUS):
                (self.run / f"nvidia{number}").touch()
            files = f"{self.run}/nvidia[0-{GPUS - 1}]"
            (self.run / "gres.conf").write_text("".join(f"NodeName={name} Name=gpu File={files}\n" for name in names))
        (self.run / "nodes.json").write_text(json.dumps(names))
        self.daemon("slurmctld", "-c")
        for name in names:
            self.start_node(name)
        self.wait_for(names)

    def start_node(self, name):
        self.daemon("slurmd", "-N", name, "-d", str(self.root / "usr/sbin/slurmstepd"))

    def daemon(self, program, *arguments):
        output = (self.run / "log" / "daemons.log").open("a")
        started = subprocess.run(
            [self.root / "usr/sbin" / program, *arguments], env=self.environment(), stdin=subprocess.DEVNULL,
            stdout=output, stderr=output, cwd=self.run, start_new_session=True,
        )
        if started.returncode != 0:
            self.fail(f"{program} ended with {started.returncode}")

    def write_commands(self):
        shutil.rmtree(self.bin, ignore_errors=True)
        self.bin.mkdir(parents=True)
        environment = self.environment()
        for name in COMMANDS:
            command = self.bin / name
            command.write_text(
                f"#!/bin/sh\nLD_LIBRARY_PATH={environment['LD_LIBRARY_PATH']} SLURM_CONF={self.conf}\n"
                f"export LD_LIBRARY_PATH SLURM_CONF\nexec {self.root}/usr/bin/{name} \"$@\"\n"
            )
            command.chmod(0o755)

    def wait_for(self, names):
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            idle = self.ask("sinfo", "--noheader", "--Node", "--partition=main", "--format=%N %T").stdout
            if sum(line.split()[1:] == ["idle"] for line in idle.splitlines()) == len(names):
                return
            time.sleep(0.1)
        self.fail("its nodes did not become idle within 30 s")

    def fail(self, why):
        log = self.run / "log"
        self.stop()
        sys.exit(f"the cluster does not start: {why}; logs are in {log}")

    # Stop

    def pid(self, name):
        try:
            return int((self.run / f"{name}.pid").read_text())
        except (OSError, ValueError):
            return None

    def is_up(self):
        controller = self.pid("slurmctld")
        return controller is not None and program_of(controller).startswith(str(self.root))

    def processes(self):
        """Daemons and job processes of this cluster: by their program, or by the configuration they were started with as a job."""
        daemons, jobs = [], []
        mark = f"SLURM_CONF={self.conf}".encode()
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            pid = int(entry.name)
            if pid == os.getpid():
                continue
            if program_of(pid).startswith(f"{self.root}/usr/sbin/"):
                daemons.append(pid)
                continue
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # ended meanwhile, or another user's
            if mark in environment and any(line.startswith(b"SLURM_JOB_ID=") for line in environment):
                jobs.append(pid)
        return daemons, jobs

    def stop(self):
        if self.is_up():
            self.ask("scancel", "--user", getpass.getuser())
        for number in (signal.SIGTERM, signal.SIGKILL):
            daemons, jobs = self.processes()
            for pid in jobs + daemons:
                kill(pid, number)
            deadline = time.monotonic() + 10
            while time.monotonic() < deadline and any(self.processes()):
                time.sleep(0.1)
        left = sum(self.processes(), [])
        if left:
            sys.exit(f"still running: {left}")


def program_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""


def kill(pid, number):
    if pid is None:
        sys.exit("no such node is running")
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass  # ended meanwhile


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def last_line(text):
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no message"


def say(what):
    print(f"cluster: {what}", file=sys.stderr)


def unavailable(why):
    say(f"Slurm's packages cannot be had here: {why}")
    sys.exit(UNAVAILABLE)


if __name__ == "__main__":
    main()
