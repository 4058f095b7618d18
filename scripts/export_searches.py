#!/usr/bin/env python3
"""Writes crates/models/tests/goldens/searches.json: what `generate` of transformers finds over decoders whose logits are a table.

Usage: python3 scripts/export_searches.py [OUTPUT]   (needs torch 2.11 and transformers 4.57)

The next token's logits depend on the last token only, so a table of a few numbers is a whole model, and hundreds of combinations of
search settings fit a small file. Logits are multiples of 1/64: JSON holds them exactly. Each prompt is searched alone.

A case is written only if rounding cannot decide it (`rounding.py`): two hypotheses of the same bigrams in another order have the same
score, and which of them wins is then a matter of the processor.
"""

import json
import random
import sys
import warnings
from pathlib import Path

import torch
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.utils import logging

from rounding import settled

CASES = 150
# (vocabulary, spread of the logits): few tokens and many beams leave beams without continuations; a narrow spread makes long answers.
TABLES = [(3, 1.0), (6, 2.0), (12, 0.7), (24, 2.0)]


class TableConfig(PretrainedConfig):
    model_type = "table"

    def __init__(self, vocab_size=2, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size


class Table(PreTrainedModel, GenerationMixin):
    config_class = TableConfig

    def __init__(self, table):
        super().__init__(TableConfig(vocab_size=len(table)))
        self.table = torch.nn.Parameter(torch.tensor(table), requires_grad=False)

    def forward(self, input_ids, attention_mask=None, **_):
        return CausalLMOutputWithPast(logits=self.table[input_ids])


def search(model, prompt, options, eos):
    """The tokens found, up to and including the end token."""
    ids = torch.tensor([prompt])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, use_cache=False, pad_token_id=0, eos_token_id=eos, **options
    )[0, len(prompt) :].tolist()
    end = next((i for i, token in enumerate(found) if token in eos), len(found) - 1)
    return found[: end + 1]


def draw_options(draw, vocabulary):
    """Settings that a user might give together, each left out about half of the time."""
    options = {"num_beams": draw.choice([1, 2, 3, 5])}
    maybe = lambda name, values: options.update({name: draw.choice(values)}) if draw.random() < 0.5 else None
    if options["num_beams"] > 1:
        maybe("length_penalty", [-1.5, -1.0, 0.0, 0.6, 2.0])
        maybe("early_stopping", [True, False, "never"])
    maybe("repetition_penalty", [0.8, 1.3, 2.0])
    maybe("min_length", [2, 5, 8])
    maybe("min_new_tokens", [1, 3, 6])
    name, lengths = draw.choice([("max_length", [5, 9, 13]), ("max_new_tokens", [1, 4, 12])])
    options[name] = draw.choice(lengths)
    eos = sorted(draw.sample(range(vocabulary), draw.choice([1, 1, min(2, vocabulary - 1)])))
    return options, eos


def main():
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore", "Unfeasible length constraints")  # some cases are meant to be
    default = Path(__file__).parent.parent / "crates/models/tests/goldens/searches.json"
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    draw = random.Random(3)
    tables = [
        [[round(draw.gauss(0, spread) * 64) / 64 for _ in range(vocabulary)] for _ in range(vocabulary)]
        for vocabulary, spread in TABLES
    ]
    models = [Table(table).eval() for table in tables]
    cases, refused = [], 0
    while len(cases) < CASES:
        at = draw.randrange(len(tables))
        vocabulary = len(tables[at])
        options, eos = draw_options(draw, vocabulary)
        prompts = [[draw.randrange(vocabulary) for _ in range(length)] for length in (1, 4, 2)]
        tokens = [search(models[at], prompt, options, eos) for prompt in prompts]
        if not all(settled(models[at], models[at], lambda: search(models[at], prompt, options, eos), found) for prompt, found in zip(prompts, tokens)):
            refused += 1
            continue
        cases.append(dict(table=at, options=options, eos=eos, prompts=prompts, tokens=tokens))
    lines = ",\n".join(json.dumps(case) for case in cases)
    output.write_text(f'{{"tables": {json.dumps(tables)},\n"cases": [\n{lines}\n]}}\n')
    print(f"{len(cases)} cases; {refused} more were refused, because rounding could decide them")


if __name__ == "__main__":
    main()
