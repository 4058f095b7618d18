#!/usr/bin/env python3
"""Check the folder of a smaller model against the same model with zeros, in transformers, and time both.

    scripts/check_smaller.py [FULL] SMALLER [--inputs FILE] [--ressa target/release/ressa] [--passes 9]

FULL and SMALLER are two exports of one run with a step `structure`: `ressa export RUN --output FULL --full-size` and
`ressa export RUN --output SMALLER`. Where learned queries were removed there is no FULL: SMALLER alone is then compared between the two programs.

1. Both open in transformers with every weight there and every tensor used (but those that `ressa inspect` lists as leftovers, and
   the head that compares images and texts, for which the generating class has no place), and compute the same logits:
   max |difference| <= 3e-5 x max |logit|, in float32 on the CPU. So does `ressa lab forward` on the smaller one.
2. `ressa verify SMALLER` finds its certificate to hold.
3. Bytes of weights, and the median seconds of a forward pass over the two in turns, by transformers and by ressa. Zeros cost as much as
   other values, so that of FULL is the dense model's; nothing is asserted.

Inputs are random, of the BLIP-2 family; other families need a safetensors file with the names that their class's `forward` has.
Needs torch, transformers and safetensors.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import load_file, save_file

from check_export import TOLERANCE, inputs


# Retrieval reads them; the class that generates has none.
HEAD = ("vision_projection.", "text_projection.", "itm_head.")


def unused(keys, ressa, folder):
    """Tensors that transformers does not use and that are no leftovers. Either program may put a prefix before a name."""
    told = subprocess.run([ressa, "--json", "inspect", "--headers", str(folder)], capture_output=True, text=True, check=True)
    known = [leftover["name"] for leftover in json.loads(told.stdout)["leftovers"]]

    def is_known(key):
        return any(f".{key}".endswith(f".{name}") or f".{name}".endswith(f".{key}") for name in known)

    return [key for key in keys if not is_known(key) and not key.startswith(HEAD)]


def opened(folder, ressa):
    """The model of a folder, and complaints about how it opened."""
    import transformers

    name = json.loads((folder / "config.json").read_text())["architectures"][0]
    # float32 whatever the folder's type: rounding in between would drown what is looked for.
    model, info = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    found = {kind: list(info[kind]) for kind in ("missing_keys", "mismatched_keys", "unexpected_keys")}
    if found["unexpected_keys"]:
        found["unexpected_keys"] = unused(found["unexpected_keys"], ressa, folder)
    complaints = [f"{folder}: {kind} {keys[:5]}" for kind, keys in found.items() if keys]
    return model.eval(), complaints


def given(model, path):
    """Inputs by name."""
    if path is None:
        return inputs(model.config, torch.Generator().manual_seed(0))
    named = load_file(path)
    names = ["pixel_values", "input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask"]
    found = {name: named.get(name, named.get(f"right.{name}")) for name in names}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def size(folder):
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("full", type=pathlib.Path, nargs="?")
    parser.add_argument("smaller", type=pathlib.Path)
    parser.add_argument("--inputs", type=pathlib.Path)
    parser.add_argument("--ressa", default="target/release/ressa")
    parser.add_argument("--passes", type=int, default=9)
    arguments = parser.parse_args()
    folders = [arguments.full or arguments.smaller, arguments.smaller]

    models, complaints = [], []
    for folder in folders:
        model, more = opened(folder, arguments.ressa)
        models.append(model)
        complaints += more
    made = given(models[0], arguments.inputs)
    with torch.no_grad():
        full, smaller = [model(**made).logits for model in models]
    largest = full.abs().max().item()

    def compare(what, other):
        difference = (full - other).abs().max().item() if full.shape == other.shape else float("inf")
        print(f"{what}: largest difference {difference:.2e} of {largest:.2e}")
        if not difference <= TOLERANCE * largest:
            complaints.append(f"{what} differs")

    compare("logits of the smaller folder in transformers", smaller)
    seconds = {"transformers": [[], []], "ressa": [[], []]}
    with tempfile.TemporaryDirectory() as scratch:
        named, answered = pathlib.Path(scratch) / "inputs.safetensors", pathlib.Path(scratch) / "outputs.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in made.items()}, named)

        def forward(folder):
            command = [arguments.ressa, "--json", "lab", "forward", "--model", folder, "--dtype", "float32"]
            command += ["--inputs", named, "--output", answered, "--device", "cpu"]
            told = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
            return json.loads(told.stdout)["seconds"]

        forward(arguments.smaller)
        compare("logits of the smaller folder in ressa", load_file(answered)["logits"])
        for _ in range(arguments.passes):
            for at, (folder, model) in enumerate(zip(folders, models)):
                start = time.perf_counter()
                with torch.no_grad():
                    model(**made)
                seconds["transformers"][at].append(time.perf_counter() - start)
                seconds["ressa"][at].append(forward(folder))
    before, after = map(size, folders)
    print(f"bytes of weights: {before} and {after}, {after / before:.1%}")
    for program, (whole, rest) in seconds.items():
        whole, rest = statistics.median(whole), statistics.median(rest)
        print(f"seconds of a forward pass in {program}: {whole:.4f} and {rest:.4f}, {whole / rest:.2f}x")

    verdict = subprocess.run([arguments.ressa, "verify", str(arguments.smaller)], capture_output=True, text=True)
    print(verdict.stdout.strip().splitlines()[-1] if verdict.stdout else verdict.stderr.strip())
    if verdict.returncode != 0:
        complaints.append(f"ressa verify ends with {verdict.returncode}")
    for complaint in complaints:
        print(f"WRONG  {complaint}")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
