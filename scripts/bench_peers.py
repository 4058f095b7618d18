#!/usr/bin/env python3
"""Prunes one BLIP-2 with OPT by `ressa prune` and by llm-compressor, whole processes in turns: seconds and peak memory; then the T5 family's forward
pass beside transformers.

Usage: python3 scripts/bench_peers.py [--peer PYTHON] [--samples N] [--methods wanda sparsegpt] [--pattern 50|2:4] [--threads N] [--rounds N]
       [--keep FOLDER] [--skip-forward]

PYTHON is a Python with llmcompressor 0.11.0 and Pillow, best in a virtual environment of its own (5 GB with its torch):
    python3 -m venv .venv-peer && .venv-peer/bin/pip install llmcompressor==0.11.0 Pillow
This script itself runs in any Python that has Pillow; the forward pass needs torch 2.11 and transformers 4.57 in it as well.

The folder has random weights and 242 M parameters (ViT-B, a small Q-Former, OPT-125m), in f32. Image encoder and language model are pruned, on
both sides from inputs of the dense model: that is the only pipeline of llm-compressor that takes a BLIP-2. A process is counted from its start,
imports included, to its end, with the pruned folder on the disk. Peak memory is the largest resident set of a process. Masks are compared:
what is missing to 100 % is rounding for Wanda, and for SparseGPT what follows from a first weight that fell otherwise.
Ratios above 1 mean that ressa is faster or smaller.
"""

import argparse
import importlib.util
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RESSA = TARGET / "release" / "ressa"
CONFIG = dict(
    model_type="blip-2", architectures=["Blip2ForConditionalGeneration"], dtype="float32", num_query_tokens=32, image_token_index=50265,
    use_decoder_only_language_model=True,
    vision_config=dict(
        model_type="blip_2_vision_model", hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12,
        image_size=224, patch_size=14,
    ),
    qformer_config=dict(
        model_type="blip_2_qformer", hidden_size=768, intermediate_size=2640, num_hidden_layers=4, num_attention_heads=12,
        encoder_hidden_size=768, cross_attention_frequency=2, vocab_size=30522,
    ),
    text_config=dict(
        model_type="opt", architectures=["OPTForCausalLM"], vocab_size=50304, hidden_size=768, ffn_dim=3072, num_hidden_layers=12,
        num_attention_heads=12, word_embed_proj_dim=768, max_position_embeddings=2048, pad_token_id=1, eos_token_id=50118, bos_token_id=2,
    ),
)
WORDS = "a small large plain striped red green blue yellow circle square ring bar arch above below left right of the is there what color".split()
CHILD = "--prune-as-the-peer-does"


def make(folder, count):
    """The model folder, pictures, and the list of calibration samples."""
    from PIL import Image

    (folder / "config.json").write_text(json.dumps(CONFIG))
    command = [RESSA, "--quiet", "lab", "random-checkpoint", "--like", folder / "config.json", "--dtype", "float32", "--output", folder / "model"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    draw, samples = random.Random(3), []
    for number in range(count):
        path = folder / f"{number}.png"
        Image.effect_noise((320, 240), 60 + number).convert("RGB").save(path)
        text = lambda words: " ".join(draw.choices(WORDS, k=words))
        samples.append(dict(image=str(path), prompt=text(8 + number % 5), answer=text(10)))
    (folder / "samples.json").write_text(json.dumps(samples))


def peer(folder, output, metric, pattern, threads):
    """Runs in the peer's Python: loads, prunes, writes, and says how long each took."""
    clock, seconds = time.perf_counter(), {}

    def lap(name):
        nonlocal clock
        seconds[name], clock = time.perf_counter() - clock, time.perf_counter()

    import torch
    from PIL import Image
    from transformers import AutoProcessor, Blip2ForConditionalGeneration

    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    torch.set_num_threads(threads)
    lap("imports")
    model = Blip2ForConditionalGeneration.from_pretrained(folder / "model", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder / "model")
    samples = json.loads((folder / "samples.json").read_text())
    batches = [
        dict(processor(images=Image.open(s["image"]).convert("RGB"), text=f"{s['prompt']} {s['answer']}", return_tensors="pt")) for s in samples
    ]
    lap("loading")
    kind = dict(wanda=WandaPruningModifier, sparsegpt=SparseGPTModifier)[metric]
    amount = dict(sparsity=0.5, mask_structure=pattern) if ":" in pattern else dict(sparsity=int(pattern) / 100, mask_structure="0:0")
    recipe = kind(targets=["re:.*vision_model.encoder.layers.*", "re:.*language_model.model.decoder.layers.*"], **amount)
    data = torch.utils.data.DataLoader(batches, batch_size=None)
    oneshot(model=model, processor=processor, recipe=[recipe], dataset=data, num_calibration_samples=len(samples), pipeline="basic")
    lap("pruning")
    model.save_pretrained(output, save_compressed=False)
    lap("writing")
    print("SECONDS", json.dumps(seconds))


def measured(command, log):
    """Wall seconds, CPU seconds and the peak resident set of a process and of those it waited for, in GB."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
    with open(log, "w") as said:
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=said, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        sys.exit(f"`{' '.join(map(str, command))}` ended with {process.returncode}:\n" + "\n".join(log.read_text().splitlines()[-15:]))
    return time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6


def zeros(folder):
    """Zeros of each matrix of a written folder, as bits; layers by the end of their name, which releases begin differently."""
    import numpy

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            base = file.tell()
            for name, about in header.items():
                inside = ".layers." in name and name.endswith(".weight") and len(about["shape"]) == 2
                if inside:
                    start, end = about["data_offsets"]
                    file.seek(base + start)
                    found[name.removeprefix("model.")] = numpy.frombuffer(file.read(end - start), dtype=numpy.float32) == 0
    return found


def agreement(ours, theirs):
    """Shares of zeros of either side, and of weights about which both decided alike."""
    own, other = zeros(ours), zeros(theirs)
    names = [name for name in own if own[name].any()]
    missing = [name for name in names if name not in other]
    if missing:
        sys.exit(f"the peer's folder has no `{missing[0]}`, only names such as `{next(iter(other), None)}`")
    total = sum(own[name].size for name in names)
    share = lambda bits: 100 * sum(int(bits(name).sum()) for name in names) / total
    return share(lambda n: own[n]), share(lambda n: other[n]), share(lambda n: own[n] == other[n]), len(names)


def compare(folder, metric, arguments):
    pattern = arguments.pattern
    amount = ["--pattern", pattern, "--vision", "0.5", "--language", "0.5"] if ":" in pattern else ["--vision", int(pattern) / 100, "--language", int(pattern) / 100]
    pairs = []
    for turn in range(arguments.rounds):
        own, other = folder / f"{metric}-{turn}-ressa", folder / f"{metric}-{turn}-peer"
        theirs = [arguments.peer, __file__, CHILD, folder, other, metric, pattern, arguments.threads]
        ours = [
            RESSA, "--quiet", "prune", "--model", folder / "model", "--metric", metric, *amount, "--propagate", "dense",
            "--calibration", folder / "samples.json", "--threads", arguments.threads, "--output", own,
        ]
        pairs.append((measured(theirs, folder / "peer.log"), measured(ours, folder / "ressa.log")))
        line = next(line for line in (folder / "peer.log").read_text().splitlines() if line.startswith("SECONDS"))
        laps = json.loads(line.split(maxsplit=1)[1])
    print(f"{metric} {pattern}: llm-compressor's last run took " + ", ".join(f"{seconds:.1f} s for {name}" for name, seconds in laps.items()))
    for at, (what, unit) in enumerate([("wall", "s"), ("CPU", "s"), ("peak memory", "GB")]):
        middle = lambda side: statistics.median(pair[side][at] for pair in pairs)
        ratio = statistics.median(pair[0][at] / pair[1][at] for pair in pairs)
        print(f"  {what:<12} llm-compressor {middle(0):8.2f} {unit:<3} ressa {middle(1):8.2f} {unit:<3} {ratio:6.2f} x", flush=True)
    ours_zero, theirs_zero, alike, layers = agreement(own, other)
    print(f"  {layers} layers: llm-compressor {theirs_zero:.3f} % zero, ressa {ours_zero:.3f} % zero, {alike:.3f} % of weights decided alike", flush=True)


def usable(python):
    probe = "import llmcompressor, PIL; print(llmcompressor.__version__)"
    try:
        found = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    except OSError:
        return False
    return found.returncode == 0


def main():
    if CHILD in sys.argv:
        folder, output, metric, pattern, threads = sys.argv[sys.argv.index(CHILD) + 1 :]
        return peer(Path(folder), Path(output), metric, pattern, int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="a Python with llmcompressor 0.11.0")
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--methods", nargs="+", default=["wanda", "sparsegpt"], choices=["wanda", "sparsegpt"])
    parser.add_argument("--pattern", default="50", help="percent, or N:M")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for everything, left behind; it must be absent or empty")
    parser.add_argument("--skip-forward", action="store_true", help="pruning only")
    arguments = parser.parse_args()
    if not RESSA.exists():
        sys.exit(f"{RESSA} is not there; run `make build` first")
    if importlib.util.find_spec("PIL") is None or importlib.util.find_spec("numpy") is None:
        sys.exit(f"this Python ({sys.executable}) has no Pillow or no numpy; install with: pip install Pillow numpy")
    if not usable(arguments.peer):
        sys.exit(f"`{arguments.peer}` has no llmcompressor; install with: pip install llmcompressor==0.11.0 Pillow, and name that Python with --peer")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        make(folder, arguments.samples)
        print(f"BLIP-2 with OPT, {arguments.samples} samples, {arguments.threads} thread(s), whole processes, medians of {arguments.rounds} round(s)")
        for metric in arguments.methods:
            compare(folder, metric, arguments)
    if not arguments.skip_forward:
        print("forward pass and beam search of the T5 family")
        command = [sys.executable, ROOT / "scripts" / "bench_transformers.py", "--only", "flant5", "--threads", str(arguments.threads)]
        sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
