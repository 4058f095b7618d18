#!/usr/bin/env python3
"""Writes the golden files of crates/models: tiny InstructBLIP folders and what transformers computes with them.

Usage: python3 scripts/export_goldens.py [OUTPUT]   (needs torch 2.11 and transformers 4.57; default crates/models/tests/goldens)

Each folder is an ordinary checkpoint (weights rounded to bf16 and stored so) with `golden.safetensors` beside it: token ids, pixels,
image features, Q-Former output, language prefix, forced logits, computed in f32, one row at a time and without padding; and
`golden.json` with generated tokens, up to and including the end token. Sizes are chosen so that every dimension differs from every other that it could be confused with.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import InstructBlipConfig, InstructBlipForConditionalGeneration

QUERIES, IMAGE_TOKEN, VOCABULARY = 3, 39, 40
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [12, 13], [14, 5, 30, 31, 8]]
ANSWERS = [[20, 21, 22], [23], [24, 25, 26, 27, 28]]
SEARCHES = {
    "greedy": dict(num_beams=1, max_new_tokens=8),
    "beam": dict(num_beams=3, length_penalty=1.0, max_new_tokens=8),
    "short": dict(num_beams=3, length_penalty=-1.0, max_new_tokens=8),
    "whole": dict(num_beams=2, min_length=11, max_length=14),
    "late": dict(num_beams=3, min_new_tokens=5, max_new_tokens=8, early_stopping=True),
    "varied": dict(num_beams=1, repetition_penalty=1.7, max_new_tokens=8),
    "varied-beam": dict(num_beams=3, repetition_penalty=1.7, length_penalty=-0.5, max_new_tokens=8),
    "default": dict(),
}
# Drawn so that the searches differ from each other and some answers end by themselves.
SEEDS = {"flant5": 14, "vicuna": 4}

VISION = dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=16, patch_size=8)
QFORMER = dict(
    vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=20,
    max_position_embeddings=12, cross_attention_frequency=2, encoder_hidden_size=24,
)
TEXT = {
    "flant5": dict(
        model_type="t5", vocab_size=VOCABULARY, d_model=32, d_kv=6, d_ff=28, num_layers=3, num_decoder_layers=2, num_heads=4,
        relative_attention_num_buckets=8, relative_attention_max_distance=10, feed_forward_proj="gated-gelu", dense_act_fn="gelu",
        decoder_start_token_id=0, eos_token_id=1, pad_token_id=0, bos_token_id=1, tie_word_embeddings=False,
    ),
    "vicuna": dict(
        model_type="llama", vocab_size=VOCABULARY, hidden_size=32, intermediate_size=28, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, rope_theta=500.0, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    ),
}


def model_for(name):
    """A random model whose every tensor matters: no zeros, no ones."""
    config = InstructBlipConfig(
        vision_config=VISION, qformer_config=QFORMER, text_config=TEXT[name], num_query_tokens=QUERIES, image_token_index=IMAGE_TOKEN
    )
    torch.manual_seed(SEEDS[name])
    model = InstructBlipForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if tensor.dim() == 1:
                tensor.normal_(0.0 if key.endswith("bias") else 1.0, 0.1)
            elif "embed" in key or "shared" in key or key == "query_tokens":
                tensor.normal_(0.0, 0.5)
            else:
                tensor.normal_(0.0, tensor[0].numel() ** -0.5)
            tensor.copy_(tensor.bfloat16().float())
    return model


def export(name, folder):
    model = model_for(name)
    eos = TEXT[name]["eos_token_id"]
    encoder_decoder = name == "flant5"
    torch.manual_seed(5)
    pixels = torch.randn(len(PROMPTS), 3, 16, 16)
    tensors = {"pixels": pixels}
    generated = {search: [] for search in SEARCHES}
    with torch.no_grad():
        tensors["features"] = model.vision_model(pixels).last_hidden_state
        for row, (prompt, answer) in enumerate(zip(PROMPTS, ANSWERS)):
            ids = torch.tensor([[IMAGE_TOKEN] * QUERIES + prompt])
            qformer = torch.tensor([prompt])
            shared = dict(
                pixel_values=pixels[row : row + 1],
                qformer_input_ids=qformer,
                qformer_attention_mask=torch.ones_like(qformer),
            )
            if encoder_decoder:
                out = model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=torch.tensor([answer + [eos]]), **shared)
                logits = out.logits
            else:
                whole = torch.cat([ids, torch.tensor([answer])], 1)
                out = model(input_ids=whole, attention_mask=torch.ones_like(whole), **shared)
                logits = out.logits[:, ids.shape[1] - 1 :]
            tensors[f"queries.{row}"] = out.qformer_outputs.last_hidden_state[:, :QUERIES].contiguous()
            tensors[f"prefix.{row}"] = model.language_projection(tensors[f"queries.{row}"])
            tensors[f"logits.{row}"] = logits.contiguous()
            for search, options in SEARCHES.items():
                found = model.generate(
                    input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **options, **shared
                )[0].tolist()
                found = found[1:] if encoder_decoder else found[ids.shape[1] :]
                generated[search].append(found[: found.index(eos) + 1] if eos in found else found)
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    save_file(tensors, folder / "golden.safetensors")
    golden = dict(prompts=PROMPTS, answers=ANSWERS, searches=SEARCHES, generated=generated)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


def main():
    default = Path(__file__).parent.parent / "crates/models/tests/goldens"
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for name in TEXT:
        export(name, output / name)


if __name__ == "__main__":
    main()
