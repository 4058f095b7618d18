#!/usr/bin/env python3
"""Two real training steps of SparseLoRA with distillation on a CPU, beside the same in plain PyTorch: peak memory and seconds a step.

Usage: python3 scripts/bench_training_step.py [--like NAME|config.json | --small] [--batch N] [--steps N] [--compute bfloat16|float32]
       [--set KEY=VALUE ...] [--threads N] [--memory-limit GIB] [--peer-checkpointing] [--only ressa|peer] [--keep FOLDER]
       (needs torch 2.11, transformers 4.57 and Pillow; the default writes a random FlanT5-XL of 8 GB)

Ours is an experiment as a user writes it: magnitude 2:4 in both towers, one SparseLoRA training with distillation from the dense model, run by
`ressa sweep` up to the end of the training. `--set restore.recompute=blocks` or `--set restore.micro-batch=1` reaches it as an override.

The peer is InstructBLIP of transformers with the formula of the paper's released code: each adapted layer forms `(W + scale * B A) * M` in its forward
pass, the interface `W + scale * B A`; the teacher is the same model with adapters and masks switched off, its logits without gradients;
the loss is `0.9 CE + 0.1 KL`, summed over positions and divided by the batch. Adapters are f32, weights of the type that is asked for.

Peak memory is the largest resident set of the process that trains, while it trains. A step's seconds are for ressa the difference between trainings
of one step and of N + 1, over N; for the peer the median of its steps after the first. On a machine with other work CPU seconds are the fairer. A side that grows beyond the limit is stopped, and said to.
"""

import argparse
import importlib.util
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runlog import published

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RESSA = TARGET / "release" / "ressa"
GIB = 1 << 30
CHILD = "--train-as-the-peer-does"
NEEDED = {"torch": "torch==2.11.0", "transformers": "transformers==4.57.6", "PIL": "Pillow"}
SMALL = dict(
    model_type="instructblip", architectures=["InstructBlipForConditionalGeneration"], num_query_tokens=32, image_token_index=4000,
    vision_config=dict(
        model_type="instructblip_vision_model", hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_attention_heads=4,
        image_size=224, patch_size=14,
    ),
    qformer_config=dict(
        model_type="instructblip_qformer", vocab_size=2000, hidden_size=192, num_hidden_layers=4, num_attention_heads=3, intermediate_size=768,
        max_position_embeddings=128, cross_attention_frequency=2, encoder_hidden_size=256,
    ),
    text_config=dict(
        model_type="t5", vocab_size=4032, d_model=384, d_kv=64, d_ff=1024, num_layers=6, num_decoder_layers=6, num_heads=6,
        feed_forward_proj="gated-gelu", dense_act_fn="gelu", decoder_start_token_id=0, eos_token_id=1, pad_token_id=0,
        tie_word_embeddings=False,
    ),
)
EXPERIMENT = """
extends: ../base/paper-flant5.yaml
name: training-step
description: How much memory and time does a training step take?
model: {{ checkpoint: {model}, compute: {compute} }}
data: {{ root: {data} }}
prune: {{ metric: magnitude, pattern: "2:4", vision.sparsity: 0.5, language.sparsity: 0.5 }}
restore: {{ batch: {batch}, samples: {samples}, distill.weight: 0.1 }}
evaluate: {{ tasks: [gqa], questions: 1, images: 1 }}
axes: {{ restore.method: [none, sparse-lora] }}
replicate: {{ seed: [0] }}
"""
# Ends of the names of adapted layers, with rank and scale, by part of the model.
ADAPTED = {
    "vision_model.encoder.": (("qkv", "projection", "fc1", "fc2"), 4, 4.0),
    "qformer.encoder.": (("query", "key", "value", "dense"), 2, 8.0),
    "language_model.": (("q", "k", "v", "o", "wi_0", "wi_1", "wo"), 8, 2.0),
}


def say(text):
    print(text, flush=True)


def make(folder, arguments):
    """The model folder, the corpora, and an experiments folder with the experiment in it."""
    like = arguments.like
    if arguments.small:
        like = folder / "config.json"
        like.write_text(json.dumps(SMALL))
    if not (folder / "model").exists():
        command = [RESSA, "--quiet", "lab", "random-checkpoint", "--like", like, "--dtype", "bfloat16", "--output", folder / "model"]
        subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    if not (folder / "data").exists():
        subprocess.run([sys.executable, ROOT / "scripts/make_paper_fixture.py", folder / "data", "--data-only", "--images", "16"], check=True)
    shutil.rmtree(folder / "experiments", ignore_errors=True)
    shutil.copytree(ROOT / "experiments", folder / "experiments", ignore=shutil.ignore_patterns("store"))
    text = EXPERIMENT.format(
        model=json.dumps(str(folder / "model")), data=json.dumps(str(folder / "data")), compute=arguments.compute, batch=arguments.batch,
        samples=8 * arguments.batch,
    )
    (folder / "experiments" / "shapes" / "step.yaml").write_text(text)


def resident(pid):
    """Bytes resident of a process; 0 once it is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def children(pid):
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def watch(process, limit, until=lambda: False):
    """The largest resident set of a process or a child of it, until something is true or it ends; whether it had to be stopped."""
    peak = 0
    while process.poll() is None and not until():
        peak = max([peak, *(resident(pid) for pid in [process.pid, *children(process.pid)])])
        if peak > limit:
            process.send_signal(signal.SIGINT)
            time.sleep(2)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
            return peak, True
        time.sleep(0.02)
    return peak, False


def sweep(folder, results, overrides, kind, count, arguments):
    """Sweeps until `count` stages of a kind are published. Their records, the peak, and whether the limit ended it."""
    command = [RESSA, "--results", results, "--experiments", folder / "experiments", "--quiet", "sweep", "--no-report", "--device", "cpu", "--slots", "1"]
    command += ["--threads", arguments.threads, folder / "experiments/shapes/step.yaml", *overrides]
    made = lambda: [line for line in published(results) if line["kind"] == kind]
    with open(folder / "sweep.log", "w") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=subprocess.STDOUT)
        peak, stopped = watch(process, arguments.limit, lambda: len(made()) >= count)
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # what is asked for is there; the evaluations are not
            time.sleep(0.5)
            process.send_signal(signal.SIGINT)
        process.wait()
    if not stopped and len(made()) < count:
        sys.exit("the sweep failed:\n" + "\n".join((folder / "sweep.log").read_text().splitlines()[-15:]))
    return made(), peak, stopped


def ours(folder, arguments):
    results = folder / "results"
    shutil.rmtree(results, ignore_errors=True)
    sweep(folder, results, ["restore.method=none"], "prune", 2, arguments)
    seconds, peaks = [], []
    for steps in (1, arguments.steps + 1):
        overrides = ["restore.method=sparse-lora", f"restore.steps={steps}", *arguments.set]
        made, peak, stopped = sweep(folder, results, overrides, "adapt", len(seconds) + 1, arguments)
        peaks.append(peak)
        if stopped:
            return max(peaks), None
        seconds.append((made[-1]["seconds"], made[-1]["cpu_seconds"]))
    return max(peaks), tuple((after - before) / arguments.steps for before, after in zip(*seconds))


def adapt(model, torch):
    """Puts the reference's layer in place of every adapted linear. Returns the adapters and a switch for the teacher."""
    functional, state = torch.nn.functional, dict(dense=False)

    class SparseLora(torch.nn.Module):
        def __init__(self, linear, rank, scale, masked):
            super().__init__()
            self.weight, self.bias, self.scale, self.masked = linear.weight, linear.bias, scale, masked
            rows, columns = linear.weight.shape
            self.a = torch.nn.Parameter((torch.rand(rank, columns) * 2 - 1) / columns**0.5)
            self.b = torch.nn.Parameter(torch.zeros(rows, rank))
            if masked:
                weakest = linear.weight.detach().abs().view(rows, -1, 4).topk(2, dim=2, largest=False).indices
                mask = torch.ones(rows, columns // 4, 4, dtype=torch.bool).scatter_(2, weakest, False)
                self.register_buffer("mask", mask.view(rows, columns))

        def forward(self, x):
            if state["dense"] and self.masked:
                return functional.linear(x, self.weight, self.bias)
            weight = self.weight + (self.b @ self.a).to(self.weight.dtype) * self.scale
            return functional.linear(x, weight * self.mask if self.masked else weight, self.bias)

    model.requires_grad_(False)
    for part, (ends, rank, scale) in ADAPTED.items():
        for name, module in list(model.named_modules()):
            inside = name.startswith(part) or name.startswith("model." + part)
            if inside and isinstance(module, torch.nn.Linear) and name.rsplit(".", 1)[-1] in ends:
                parent, last = name.rsplit(".", 1)
                setattr(model.get_submodule(parent), last, SparseLora(module, rank, scale, part != "qformer.encoder."))
    return [parameter for parameter in model.parameters() if parameter.requires_grad], state


def peer(folder, compute, batch, steps, threads, checkpointing):
    """Trains, and prints the seconds of each step and its loss."""
    import torch
    from transformers import InstructBlipForConditionalGeneration

    torch.set_num_threads(threads)
    model = InstructBlipForConditionalGeneration.from_pretrained(folder / "model", dtype=getattr(torch, compute)).eval()
    torch.manual_seed(0)
    adapters, state = adapt(model, torch)
    if checkpointing:
        model.gradient_checkpointing_enable(dict(use_reentrant=False))
        model.train()  # transformers recomputes in training mode only
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    optimiser = torch.optim.AdamW(adapters, lr=1e-4, weight_decay=0.05)
    config = model.config
    image, draw = [config.image_token_index] * config.num_query_tokens, random.Random(1)
    words = lambda limit, count: [draw.randrange(5, limit) for _ in range(count)]
    ids = torch.tensor([image + words(1000, 8) + [1] for _ in range(batch)])
    qformer = torch.tensor([words(1000, 8) for _ in range(batch)])
    labels = torch.tensor([words(1000, 12) + [1] for _ in range(batch)])
    for step in range(steps + 1):
        given = dict(
            pixel_values=torch.randn(batch, 3, config.vision_config.image_size, config.vision_config.image_size).to(model.dtype),
            input_ids=ids, attention_mask=torch.ones_like(ids), qformer_input_ids=qformer, qformer_attention_mask=torch.ones_like(qformer),
            labels=labels,
        )
        start, cpu = time.perf_counter(), time.process_time()
        state["dense"] = True
        with torch.no_grad():
            teacher = model(**given).logits.float().log_softmax(-1)
        state["dense"] = False
        found = model(**given)
        student = found.logits.float().log_softmax(-1)
        divergence = (teacher.exp() * (teacher - student)).sum() / batch
        loss = 0.9 * torch.nn.functional.nll_loss(student.flatten(0, 1), labels.flatten()) + 0.1 * divergence
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        print("STEP", time.perf_counter() - start, time.process_time() - cpu, loss.item(), flush=True)


def theirs(folder, arguments):
    command = [sys.executable, __file__, CHILD, folder, arguments.compute, arguments.batch, arguments.steps, arguments.threads, int(arguments.peer_checkpointing)]
    log = folder / "peer.log"
    with open(log, "w") as said:
        environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}  # as ressa has it: on a shared machine waiting threads must not spin
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=subprocess.STDOUT, env=environment)
        peak, stopped = watch(process, arguments.limit)
        process.wait()
    steps = [tuple(map(float, line.split()[1:3])) for line in log.read_text().splitlines() if line.startswith("STEP")]
    if process.returncode != 0 and not stopped:
        if process.returncode == -signal.SIGKILL:
            return peak, None  # the kernel's limit was lower than ours
        sys.exit(f"the peer ended with {process.returncode}:\n" + "\n".join(log.read_text().splitlines()[-15:]))
    return peak, None if stopped else tuple(map(statistics.median, zip(*steps[1:])))


def available():
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def main():
    if CHILD in sys.argv:
        folder, compute, *numbers = sys.argv[sys.argv.index(CHILD) + 1 :]
        return peer(Path(folder), compute, *map(int, numbers))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", default="instructblip-flan-t5-xl", help="a published InstructBLIP with FlanT5, or a config.json of one")
    parser.add_argument("--small", action="store_true", help="a model of 30 M parameters instead, for a trial")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="steps that are timed, after a first one")
    parser.add_argument("--compute", choices=["bfloat16", "float32"], default="bfloat16")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of ours, such as restore.recompute=blocks")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--memory-limit", type=float, metavar="GIB", help="resident memory at which a side is stopped [default: 95 %% of what is free]")
    parser.add_argument("--peer-checkpointing", action="store_true", help="the peer recomputes its blocks, which the released code does not")
    parser.add_argument("--only", choices=["ressa", "peer"], help="one side")
    parser.add_argument("--keep", type=Path, help="a folder for everything, used again if it is there")
    arguments = parser.parse_args()
    if not RESSA.exists():
        sys.exit(f"{RESSA} is not there; run `make build` first")
    missing = [wheel for module, wheel in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.exit(f"this Python ({sys.executable}) has no {', '.join(missing)}; install with: pip install {' '.join(missing)}")
    with tempfile.TemporaryDirectory(dir=arguments.keep.parent if arguments.keep else TARGET) as scratch:
        folder = (arguments.keep or Path(scratch)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, arguments)
        arguments.limit = arguments.memory_limit * GIB if arguments.memory_limit else 0.95 * available()
        size = sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors")) / GIB
        settings = " ".join(arguments.set) or "as it is"
        say(f"weights of {size:.2f} GiB, batch {arguments.batch}, {arguments.compute}, {arguments.threads} thread(s); ressa: {settings}")
        found = {}
        for name, side in [("peer", theirs), ("ressa", ours)]:
            if arguments.only in (None, name):
                found[name] = peak, seconds = side(folder, arguments)
                label = "plain PyTorch" if name == "peer" else "ressa"
                rest = "a step takes {:.2f} s ({:.2f} CPU seconds)".format(*seconds) if seconds is not None else "stopped there, at the limit"
                say(f"  {label:<14} peak {peak / GIB:6.2f} GiB resident   {rest}")
        if len(found) == 2:
            (their_peak, their_seconds), (our_peak, our_seconds) = found["peer"], found["ressa"]
            more = "more than " if their_seconds is None else ""
            say(f"  plain PyTorch takes {more}{their_peak / our_peak:.2f} x the memory of ressa")
            if their_seconds and our_seconds:
                wall, cpu = (other / own for other, own in zip(their_seconds, our_seconds))
                say(f"  plain PyTorch takes {wall:.2f} x the time of ressa, {cpu:.2f} x its CPU time")


if __name__ == "__main__":
    main()
