#!/usr/bin/env python3
"""Why Wanda beats magnitude on real weights: perplexity of the language model where only some of the input norms may count.

    ressa --results FOLDER sweep experiments/real/reduced.yaml prune.calibration.propagate=dense -E 'kind = statistics' --no-gate
    PYTHON scripts/real/outliers.py FOLDER [--sparsity 0.5] [--windows 12] [--threads N]

PYTHON has torch and transformers. Weights go row by row, from the statistics of the dense model, as the program prunes them. `above 6` leaves the norm of every
channel at 1 that is not larger than six times the median of its matrix, so that it is magnitude but for a few channels; `capped at 6` takes these
few for no more than that, so that it is Wanda without its outliers.
"""

import argparse
import json
import math
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import AutoTokenizer, InstructBlipForConditionalGeneration

ROOT = Path(__file__).resolve().parents[2]
# Matrices of a block by the number of what they read.
READERS = [
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    ["self_attn.o_proj"],
    ["mlp.gate_proj", "mlp.up_proj"],
    ["mlp.down_proj"],
]
MEDIANS = (1.5, 3, 6, 20)


def statistics(results):
    """Files of the language model's statistics, a block each."""
    for path in sorted(Path(results, "store").glob("*/*/manifest.json")):
        manifest = json.loads(path.read_text())
        if manifest["kind"] == "statistics" and manifest["configuration"]["tower"] == "language":
            return [path.parent / name for name in sorted(manifest["files"]) if name.startswith("block-")]
    sys.exit(f"{results} has no statistics of a language model; the first lines of --help say how to make some")


def perplexity(model, ids, windows, width=256):
    total = 0.0
    with torch.no_grad():
        for window in ids[: windows * width].view(windows, width):
            likely = model(window[None]).logits[0, :-1].log_softmax(-1)
            total -= likely.gather(1, window[1:, None]).sum().item() / (width - 1)
    return math.exp(total / windows)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results")
    parser.add_argument("--model", default=ROOT / ".real/models/real-instructblip", type=Path)
    parser.add_argument("--sparsity", default=0.5, type=float)
    parser.add_argument("--windows", default=12, type=int)
    parser.add_argument("--threads", default=2, type=int)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    blocks = statistics(options.results)
    model = InstructBlipForConditionalGeneration.from_pretrained(options.model, dtype=torch.float32).language_model.eval()
    text = (ROOT / "experiments/real/text.txt").read_text()
    ids = AutoTokenizer.from_pretrained(options.model)(text, return_tensors="pt").input_ids[0]
    layers = []
    for block, path in zip(model.model.layers, blocks, strict=True):
        with safe_open(path, "pt") as file:
            for number, names in enumerate(READERS):
                norms = file.get_tensor(f"{number}.squares").sqrt().float()
                layers += [(block.get_submodule(name), block.get_submodule(name).weight.data, norms) for name in names]

    def pruned(counts):
        """Perplexity where norms count as `counts` says, in units of their matrix's median."""
        for layer, weight, norms in layers:
            scores = weight.abs() * counts(norms / norms.median())
            least = scores.kthvalue(int(weight.shape[1] * options.sparsity), dim=1, keepdim=True).values
            layer.weight.data = weight.where(scores > least, 0)
        return perplexity(model, ids, options.windows)

    print(f"dense {perplexity(model, ids, options.windows):.0f}; {100 * options.sparsity:g} % of each row pruned:")
    print(f"magnitude {pruned(torch.ones_like):.0f}, Wanda {pruned(lambda norms: norms):.0f}")
    print(f"{'medians':>8} {'above':>8} {'capped at':>10}")
    for bound in MEDIANS:
        above = pruned(lambda norms: norms.where(norms > bound, 1))
        capped = pruned(lambda norms: norms.clamp(max=bound))
        print(f"{bound:>8g} {above:>8.0f} {capped:>10.0f}", flush=True)


if __name__ == "__main__":
    main()
