#!/usr/bin/env python3
"""Prunes the same model folders by `ressa prune` and by other tools with the settings that match, whole processes in turns: masks, seconds, memory, scores.

Usage: python3 scripts/compare_llmcompressor.py --peer PYTHON [--models blip2-opt smollm2] [--methods wanda sparsegpt] [--patterns 50 2:4]
       [--threads 1 2] [--samples N] [--rounds N] [--others] [--questions N] [--keep FOLDER]

PYTHON is a Python with llmcompressor 0.11.0 and Pillow, best in a virtual environment of its own (5 GB with its torch); --others needs torchao and modelopt there:
    python3 -m venv .venv-peer && .venv-peer/bin/pip install llmcompressor==0.11.0 Pillow torchao==0.18.0 nvidia-modelopt==0.47.0
This script itself runs in any Python that has Pillow and numpy.

Models, in f32:
    blip2-opt  random weights, 242 M parameters: ViT-B, a small Q-Former, OPT-125m; image encoder and language model are pruned
    smollm2    the real weights of `make real` (scripts/real/run.sh assemble): the language model of real-instructblip is pruned, calibrated on easy-VQA
Both sides read the same samples and take inputs of the dense model, the only pipeline of llm-compressor that takes a BLIP-2. A process is counted from its
start, imports included, to its end, with the pruned folder on the disk; peak memory is the largest resident set of a process. Masks are compared over the
layers that are pruned: what is missing to 100 % is rounding for Wanda, and for SparseGPT what follows from a first weight that fell otherwise.
Ratios above 1 mean that ressa is faster or smaller. The pruned folders of real weights are scored by `ressa sweep`: easy-VQA's first questions and perplexity.

--others adds torchao's Wanda, which ranks whole matrices (`--group matrix` here), and modelopt's 2:4 SparseGPT, which keeps the mask and drops the update.
"""

import argparse
import importlib.util
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
RESSA = TARGET / "release" / "ressa"
REAL = ROOT / ".real"
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
)  # fmt: skip
WORDS = "a small large plain striped red green blue yellow circle square ring bar arch above below left right of the is there what color".split()
CHILD = "--prune-as-the-peer-does"
# Names of the layers that both sides prune, as transformers 4.57 says them in memory and as either release writes them.
LAYERS = {
    "blip2-opt": r"(vision_model\.encoder\.layers|language_model\.model\.decoder\.layers)\.",
    "smollm2": r"language_model\.(model\.)?layers\.",
}


def make_blip2(folder: Path, count: int) -> None:
    """A model folder of random weights, pictures, and the list of calibration samples."""
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


def make_smollm2(folder: Path, count: int) -> None:
    """The assembled folder of real weights, and samples of easy-VQA's training questions."""
    model, data = REAL / "models/real-instructblip", REAL / "data/easy-vqa/train"
    if not (model / "model.safetensors").is_file():
        sys.exit(f"{model} is not there; run scripts/real/run.sh assemble first")
    (folder / "model").symlink_to(model)
    questions = json.loads((data / "questions.json").read_text())
    chosen = random.Random(3).sample(questions, count)
    samples = [
        dict(image=str(data / "images" / f"{image}.png"), prompt=f"{question} Answer:", answer=answer) for question, answer, image in chosen
    ]
    (folder / "samples.json").write_text(json.dumps(samples))


MAKERS = {"blip2-opt": make_blip2, "smollm2": make_smollm2}


def batches(folder: Path, processor):
    """The samples as the model reads them; a Q-Former that takes instructions sees the prompt alone."""
    from PIL import Image

    for sample in json.loads((folder / "samples.json").read_text()):
        image = Image.open(sample["image"]).convert("RGB")
        made = dict(processor(images=image, text=f"{sample['prompt']} {sample['answer']}", return_tensors="pt"))
        if "qformer_input_ids" in made:
            prompt = processor(images=image, text=sample["prompt"], return_tensors="pt")
            made |= {name: prompt[name] for name in ("qformer_input_ids", "qformer_attention_mask")}
        yield made


def by_llm_compressor(model, processor, samples, layers, metric, pattern):
    import torch
    from llmcompressor import oneshot
    from llmcompressor.modifiers.pruning import SparseGPTModifier, WandaPruningModifier

    kind = dict(wanda=WandaPruningModifier, sparsegpt=SparseGPTModifier)[metric]
    amount = dict(sparsity=0.5, mask_structure=pattern) if ":" in pattern else dict(sparsity=int(pattern) / 100, mask_structure="0:0")
    recipe = kind(targets=[f"re:.*{layers}.*"], **amount)
    data = torch.utils.data.DataLoader(samples, batch_size=None)
    oneshot(model=model, processor=processor, recipe=[recipe], dataset=data, num_calibration_samples=len(samples), pipeline="basic")


def linears(model, layers):
    import torch

    return [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and re.search(layers, name)]


def by_torchao(model, processor, samples, layers, metric, pattern):
    import torch
    from torchao.sparsity.wanda import WandaSparsifier

    sparsifier = WandaSparsifier(sparsity_level=int(pattern) / 100)
    sparsifier.prepare(model, config=[{"tensor_fqn": f"{name}.weight"} for name in linears(model, layers)])
    with torch.no_grad():
        for sample in samples:
            model(**sample)
    sparsifier.step()
    sparsifier.squash_mask()


def by_modelopt(model, processor, samples, layers, metric, pattern):
    import modelopt.torch.sparsity as mts
    import torch

    kept = set(linears(model, layers))
    others = {name: None for name, module in model.named_modules() if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d)) and name not in kept}
    config = {"nn.Linear": {"*": {}, **others}, "nn.Conv2d": {"*": None}}
    sparse = mts.sparsify(model, mode=[("sparsegpt", config)], config={"data_loader": samples, "collect_func": lambda batch: batch})
    mts.export(sparse)


PEERS = {"llm-compressor": by_llm_compressor, "torchao": by_torchao, "modelopt": by_modelopt}


def peer(folder: Path, output: Path, name: str, tool: str, metric: str, pattern: str, threads: int) -> None:
    """Runs in the peer's Python: loads, prunes, writes, and says how long each took."""
    clock, seconds = time.perf_counter(), {}

    def lap(part):
        nonlocal clock
        seconds[part], clock = time.perf_counter() - clock, time.perf_counter()

    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    torch.set_num_threads(threads)
    lap("imports")
    model = AutoModelForImageTextToText.from_pretrained(folder / "model", dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(folder / "model")
    samples = list(batches(folder, processor))
    lap("loading")
    PEERS[tool](model, processor, samples, LAYERS[name], metric, pattern)
    lap("pruning")
    model.save_pretrained(output, **({"save_compressed": False} if tool == "llm-compressor" else {}))
    lap("writing")
    # For the scores: the same processor files on both sides.
    for path in (folder / "model").iterdir():
        if path.suffix != ".safetensors" and not (output / path.name).exists():
            (shutil.copytree if path.is_dir() else shutil.copy)(path, output / path.name)
    print("SECONDS", json.dumps(seconds))


def measured(command: list, log: Path) -> tuple[float, float, float]:
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


def masks(folder: Path, layers: str) -> dict:
    """Zeros of each matrix of the pruned layers, as bits, by their names from the part that all releases write alike."""
    import numpy

    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
            base = file.tell()
            for name, about in header.items():
                if len(about.get("shape", [])) == 2 and name.endswith(".weight") and re.search(layers, name):
                    start, end = about["data_offsets"]
                    file.seek(base + start)
                    found[name.replace("model.", "")] = numpy.frombuffer(file.read(end - start), dtype=numpy.float32) == 0
    return found


def agreement(ours: Path, theirs: Path, layers: str) -> tuple[float, float, float, int]:
    """Shares of zeros of either side, and of weights about which both decided alike, in per cent."""
    own, other = masks(ours, layers), masks(theirs, layers)
    missing = [name for name in own if name not in other]
    if missing or not own:
        sys.exit(f"{theirs} has no `{next(iter(missing), layers)}`, only names such as `{next(iter(other), None)}`")
    total = sum(bits.size for bits in own.values())
    share = lambda bits: 100 * sum(int(bits(name).sum()) for name in own) / total
    return share(lambda n: own[n]), share(lambda n: other[n]), share(lambda n: own[n] == other[n]), len(own)


def compare(folder: Path, name: str, tool: str, metric: str, pattern: str, threads: int, arguments) -> list[tuple[str, Path]]:
    """One pair of processes per round; answers with what was written, by a label."""
    ratio = 0.5 if ":" in pattern else int(pattern) / 100
    towers = ["--vision", ratio, "--language", ratio] if name == "blip2-opt" else ["--language", ratio]
    amount = [*towers, *(["--pattern", pattern] if ":" in pattern else []), *(["--group", "matrix"] if tool == "torchao" else [])]
    label = f"{tool}-{metric}-{pattern.replace(':', '-')}-{threads}"
    pairs = []
    for turn in range(arguments.rounds):
        own, other = folder / f"{label}-{turn}-ressa", folder / f"{label}-{turn}-peer"
        theirs = [arguments.peer, __file__, CHILD, folder, other, name, tool, metric, pattern, threads]
        ours = [
            RESSA, "--quiet", "prune", "--model", folder / "model", "--metric", metric, *amount, "--propagate", "dense",
            "--calibration", folder / "samples.json", "--threads", threads, "--output", own,
        ]  # fmt: skip
        pairs.append((measured(theirs, folder / "peer.log"), measured(ours, folder / "ressa.log")))
        line = next(line for line in (folder / "peer.log").read_text().splitlines() if line.startswith("SECONDS"))
        laps = json.loads(line.split(maxsplit=1)[1])
    print(f"{name}, {metric} {pattern}, {threads} thread(s), beside {tool}, whose last run took " + ", ".join(f"{s:.1f} s for {what}" for what, s in laps.items()))
    for at, (what, unit) in enumerate([("wall", "s"), ("CPU", "s"), ("peak memory", "GB")]):
        middle = lambda side: statistics.median(pair[side][at] for pair in pairs)
        times = statistics.median(pair[0][at] / pair[1][at] for pair in pairs)
        print(f"  {what:<12} {tool:<14} {middle(0):8.2f} {unit:<3} ressa {middle(1):8.2f} {unit:<3} {times:6.2f} x", flush=True)
    own_zeros, other_zeros, alike, layers = agreement(own, other, LAYERS[name])
    print(f"  {layers} layers: {tool} {other_zeros:.3f} % zero, ressa {own_zeros:.3f} % zero, {alike:.3f} % of weights decided alike", flush=True)
    amount_said = f"{pattern} %" if ":" not in pattern else pattern
    return [(f"{tool}, {metric} {amount_said}", other), (f"ressa beside {tool}, {metric} {amount_said}", own)]


def scores(folder: Path, written: list[tuple[str, Path]], questions: int) -> None:
    """What the folders of real weights are worth, by one sweep over all of them."""
    lines = [
        "extends: real-instructblip.yaml",
        "description: Folders pruned by several tools.",
        "dense.gate: {}",
        "prune.metric: none",
        f"evaluate.questions: {questions}",
        f"data.root: {REAL / 'data'}",
        f"data.text: {ROOT / 'experiments/real/text.txt'}",
        "variants:",
        "  folder:",
        *(f"    {json.dumps(label)}: {{ model.checkpoint: {json.dumps(str(path))} }}" for label, path in [("dense", folder / "model"), *written]),
        "report: { tables: [{ id: peers, rows: [folder], columns: metric, values: [easy-vqa, perplexity] }] }",
    ]
    # An experiment's bases lie in its own folder of experiments.
    experiments, results = folder / "experiments", folder / "results"
    experiments.mkdir()
    shutil.copy(ROOT / "experiments/base/real-instructblip.yaml", experiments)
    experiment = experiments / "peers.yaml"
    experiment.write_text("\n".join(lines) + "\n")
    done = subprocess.run([RESSA, "--quiet", "--experiments", experiments, "--results", results, "sweep", experiment])
    if done.returncode != 0:
        sys.exit(f"the sweep over pruned folders ended with {done.returncode}")
    print(next(results.rglob("peers.md")).read_text())


def usable(python: str, modules: list[str]) -> bool:
    try:
        return subprocess.run([python, "-c", f"import {', '.join(modules)}"], capture_output=True).returncode == 0
    except OSError:
        return False


def main() -> None:
    if CHILD in sys.argv:
        folder, output, name, tool, metric, pattern, threads = sys.argv[sys.argv.index(CHILD) + 1 :]
        return peer(Path(folder), Path(output), name, tool, metric, pattern, int(threads))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=sys.executable, metavar="PYTHON", help="a Python with llmcompressor 0.11.0")
    parser.add_argument("--models", nargs="+", default=["blip2-opt"], choices=list(MAKERS))
    parser.add_argument("--methods", nargs="+", default=["wanda", "sparsegpt"], choices=["wanda", "sparsegpt"])
    parser.add_argument("--patterns", nargs="+", default=["50"], help="percent, or N:M")
    parser.add_argument("--threads", nargs="+", type=int, default=[os.cpu_count()])
    parser.add_argument("--samples", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--others", action="store_true", help="torchao and modelopt, too, with the most threads")
    parser.add_argument("--questions", type=int, default=500, help="questions of easy-VQA that score a folder of real weights; 0: no scores")
    parser.add_argument("--keep", type=Path, help="a folder for everything, left behind; it must be absent or empty")
    arguments = parser.parse_args()
    if arguments.keep and arguments.keep.exists() and (not arguments.keep.is_dir() or any(arguments.keep.iterdir())):
        parser.error(f"--keep {arguments.keep} is not an empty folder: name one that is absent or empty")
    if not RESSA.exists():
        sys.exit(f"{RESSA} is not there; run `make build` first")
    if importlib.util.find_spec("PIL") is None or importlib.util.find_spec("numpy") is None:
        sys.exit(f"this Python ({sys.executable}) has no Pillow or no numpy; install with: pip install Pillow numpy")
    needed = ["llmcompressor", "PIL", *(["torchao", "modelopt"] if arguments.others else [])]
    if not usable(arguments.peer, needed):
        packages = "llmcompressor==0.11.0 Pillow" + (" torchao==0.18.0 nvidia-modelopt==0.47.0" if arguments.others else "")
        sys.exit(f"`{arguments.peer}` cannot import {', '.join(needed)}; install with: pip install {packages}, and name that Python with --peer")
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.models:
            folder = (arguments.keep or Path(scratch)) / name
            folder.mkdir(parents=True)
            MAKERS[name](folder, arguments.samples)
            print(f"{name}: {arguments.samples} samples, whole processes, medians of {arguments.rounds} round(s)")
            cases = [("llm-compressor", metric, pattern, n) for n in arguments.threads for metric in arguments.methods for pattern in arguments.patterns]
            if arguments.others:
                cases += [("torchao", "wanda", "50", max(arguments.threads)), ("modelopt", "sparsegpt", "2:4", max(arguments.threads))]
            written = dict(pair for case in cases for pair in compare(folder, name, *case, arguments))
            if name == "smollm2" and arguments.questions:
                scores(folder, list(written.items()), arguments.questions)


if __name__ == "__main__":
    main()
