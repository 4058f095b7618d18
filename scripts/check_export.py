#!/usr/bin/env python3
"""Check an exported model folder against the folder it was made from, and against transformers.

    scripts/check_export.py SOURCE EXPORTED [--ressa target/release/ressa] [--merged]

1. Tensors: same names, types and shapes; tensors that differ are prunable linears. Without --merged (masks only), every value that
   differs is +0 in the export and all others have the same bits.
2. The exported folder opens in transformers with every weight used, and computes the same logits there as in
   `ressa lab forward`: max |difference| <= 3e-5 x max |logit|, both in float32 on the CPU.
3. `ressa verify EXPORTED` finds its certificate to hold.

Needs torch, transformers and safetensors. Random inputs of a fixed seed; no data.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

TOLERANCE = 3e-5


def tensors(folder):
    """Every tensor of a folder by name."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        files = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    else:
        files = ["model.safetensors"]
    found = {}
    for name in files:
        with safe_open(folder / name, framework="pt") as file:
            for key in file.keys():
                found[key] = file.get_tensor(key)
    return found


def bits(tensor):
    """A tensor's bits as whole numbers."""
    whole = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.contiguous().view(whole[tensor.element_size()]) if tensor.is_floating_point() else tensor


def compare_tensors(source, exported, merged):
    """Complaints about the tensors, and a summary."""
    complaints, changed, zeros, total = [], 0, 0, 0
    if list(source) != list(exported) and set(source) != set(exported):
        complaints.append(f"names differ: {sorted(set(source) ^ set(exported))[:5]}")
    for name in source.keys() & exported.keys():
        old, new = source[name], exported[name]
        if old.dtype != new.dtype or old.shape != new.shape:
            complaints.append(f"{name}: {old.dtype} {list(old.shape)} became {new.dtype} {list(new.shape)}")
            continue
        differs = bits(old) != bits(new)
        if not differs.any():
            continue
        changed += 1
        zeros += int((new == 0).sum())
        total += new.numel()
        if new.dim() != 2 or not name.endswith(".weight"):
            complaints.append(f"{name}: changed although it is no linear")
        if not merged and (bits(new)[differs] != 0).any():
            complaints.append(f"{name}: a value changed into something else than +0")
        if not torch.isfinite(new).all():
            complaints.append(f"{name}: holds values that are not finite")
    share = f", {zeros / total:.2%} of their values zero" if total else ""
    return complaints, f"{len(source)} tensors, {changed} changed{share}"


def inputs(config, generator):
    """Two samples as `lab forward` reads them: image tokens first, then text; labels on a part."""
    vision, text = config.vision_config, config.text_config
    queries, image = config.num_query_tokens, getattr(config, "image_token_index", None)
    if image is None:
        image = config.image_token_id

    def ids(rows, columns, vocabulary):
        drawn = torch.randint(3, vocabulary - 1, (rows, columns), generator=generator)
        return torch.where(drawn == image, drawn - 1, drawn)

    rows = 2
    pixels = torch.randn(rows, 3, vision.image_size, vision.image_size, generator=generator)
    words = ids(rows, 9, text.vocab_size)
    input_ids = torch.cat([torch.full((rows, queries), image), words], 1)
    mask = torch.ones_like(input_ids)
    if config.use_decoder_only_language_model:
        labels = input_ids.clone()
        labels[:, : queries + 4] = -100
    else:
        labels = ids(rows, 5, text.vocab_size)
    made = {"pixel_values": pixels, "input_ids": input_ids, "attention_mask": mask, "labels": labels}
    if config.model_type == "instructblip":
        made["qformer_input_ids"] = ids(rows, 7, config.qformer_config.vocab_size)
        made["qformer_attention_mask"] = torch.ones_like(made["qformer_input_ids"])
    return made


def reference(folder, made):
    """Logits of transformers, and complaints about how the folder opened."""
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    classes = {
        "instructblip": transformers.InstructBlipForConditionalGeneration,
        "blip-2": transformers.Blip2ForConditionalGeneration,
    }
    made.update(inputs(config, torch.Generator().manual_seed(0)))
    # float32 whatever the folder's type: rounding in between would drown what is looked for.
    model, info = classes[config.model_type].from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, attn_implementation="eager"
    )
    complaints = []
    if info["missing_keys"]:
        complaints.append(f"transformers misses {sorted(info['missing_keys'])[:5]}")
    if info["mismatched_keys"]:
        complaints.append(f"transformers finds other shapes: {info['mismatched_keys'][:5]}")
    with torch.no_grad():
        return model.eval()(**made).logits, complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=pathlib.Path)
    parser.add_argument("exported", type=pathlib.Path)
    parser.add_argument("--ressa", default="target/release/ressa")
    parser.add_argument("--merged", action="store_true", help="adapters were merged: kept values may differ")
    arguments = parser.parse_args()

    complaints, summary = compare_tensors(tensors(arguments.source), tensors(arguments.exported), arguments.merged)
    print(summary)

    made = {}
    logits, more = reference(arguments.exported, made)
    complaints += more
    with tempfile.TemporaryDirectory() as folder:
        given, answered = pathlib.Path(folder) / "inputs.safetensors", pathlib.Path(folder) / "outputs.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in made.items()}, given)
        command = [arguments.ressa, "lab", "forward", "--model", arguments.exported, "--dtype", "float32"]
        command += ["--inputs", given, "--output", answered, "--device", "cpu"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        ours = load_file(answered)["logits"]
    if ours.shape != logits.shape:
        complaints.append(f"logits {list(ours.shape)}, in transformers {list(logits.shape)}")
    else:
        difference, largest = (ours - logits).abs().max().item(), logits.abs().max().item()
        print(f"logits {list(logits.shape)}: largest difference {difference:.2e}, largest logit {largest:.2e}")
        if not difference <= TOLERANCE * largest:
            complaints.append(f"logits differ by {difference:.2e} of {largest:.2e}")

    verdict = subprocess.run([arguments.ressa, "verify", str(arguments.exported)], capture_output=True, text=True)
    print(verdict.stdout.strip().splitlines()[-1] if verdict.stdout else verdict.stderr.strip())
    if verdict.returncode != 0:
        complaints.append(f"ressa verify ends with {verdict.returncode}")

    for complaint in complaints:
        print(f"WRONG  {complaint}")
    sys.exit(1 if complaints else 0)


if __name__ == "__main__":
    main()
