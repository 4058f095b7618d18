#!/usr/bin/env python3
"""Perplexities of random token ids under the language models of golden folders, taken with transformers as the code of Wanda and SparseGPT
does: windows that do not overlap, the mean cross entropy of each times its length, the exponential of their sum over all tokens.

    python3 scripts/export_perplexity_goldens.py crates/eval/tests/fixtures/perplexity.json [--models crates/models/tests/goldens]
    python3 scripts/export_perplexity_goldens.py --folder MODEL --text FILE --window 256

The second form prints the perplexity of a text, for comparison with `ressa lab perplexity`; a folder of a plain language model may be given,
too. Needs torch 2.11 and transformers 4.57.
"""

import argparse
import json
import random
from pathlib import Path

import torch
import transformers

FOLDERS = {"blip2-opt": 24, "instructblip-vicuna": 16}


def language_model(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    classes = {"blip-2": transformers.Blip2ForConditionalGeneration, "instructblip": transformers.InstructBlipForConditionalGeneration}
    one = classes.get(config.model_type, transformers.AutoModelForCausalLM)
    model = one.from_pretrained(folder, dtype=torch.float32).eval()
    return getattr(model, "language_model", model)


@torch.no_grad()
def windows(model, ids, window):
    """Negative log-likelihood of each window, and the perplexity."""
    ids = torch.tensor(ids).unsqueeze(0)
    count = ids.numel() // window
    sums, means = [], []
    for number in range(count):
        part = ids[:, number * window : (number + 1) * window]
        logits = model(part).logits.float()
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].reshape(-1, logits.shape[-1]), part[:, 1:].reshape(-1))
        means.append(loss.item())
        sums.append(loss * window)
    return means, torch.exp(torch.stack(sums).sum() / (count * window)).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, nargs="?")
    parser.add_argument("--models", type=Path, default=Path("crates/models/tests/goldens"))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--text", type=Path)
    parser.add_argument("--window", type=int, default=2048)
    options = parser.parse_args()
    if options.folder:
        tokenizer = transformers.AutoTokenizer.from_pretrained(options.folder)
        ids = tokenizer(options.text.read_text()).input_ids
        means, value = windows(language_model(options.folder), ids, options.window)
        print(json.dumps(dict(tokens=len(ids), windows=len(means), perplexity=value, nll=means)))
        return
    found = []
    for name, window in FOLDERS.items():
        model, draw = language_model(options.models / name), random.Random(3)
        words = model.config.vocab_size
        ids = [draw.randrange(words) for _ in range(5 * window + window // 2)]
        means, value = windows(model, ids, window)
        found.append(dict(folder=name, window=window, ids=ids, nll=means, perplexity=value))
    options.output.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
