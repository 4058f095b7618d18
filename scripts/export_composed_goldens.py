#!/usr/bin/env python3
"""Writes the golden folders of models that put their image into a conversation: tiny checkpoints and what transformers computes with them.

Usage: python3 scripts/export_composed_goldens.py [OUTPUT] [--only TEXT]
(needs torch 2.11 and transformers 4.57; default crates/models/tests/goldens)

Each folder is an ordinary checkpoint as `save_pretrained` writes it, or with the names that transformers 5 writes (`newer`), with
`golden.safetensors` beside it: a padded batch with logits and loss, and sums over what every linear reads; and `golden.json` with generated
tokens, written only if rounding cannot decide them (`rounding.py`).
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    Dinov2Config,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    MistralConfig,
    Qwen2Config,
    SiglipVisionConfig,
)

from export_goldens import randomised, statistics
from rounding import settled

SEARCHES = {
    "greedy": dict(num_beams=1, max_new_tokens=8),
    "beam": dict(num_beams=3, length_penalty=1.0, max_new_tokens=8),
    "varied": dict(num_beams=2, repetition_penalty=1.4, length_penalty=-0.5, max_new_tokens=7),
    "late": dict(num_beams=2, min_new_tokens=5, max_new_tokens=9, early_stopping=True),
}
ROWS, BEFORE = [[5, 6, 7, 8], [12], [14, 5, 30]], [1, 9, 4]
TARGETS = [[20, 21], [23, 22, 24], [25]]
ENDS = dict(bos_token_id=1, eos_token_id=2, pad_token_id=0)


def llava(vision, text, encoder=CLIPVisionConfig, decoder=LlamaConfig, **rest):
    return LlavaConfig(vision_config=encoder(**vision), text_config=decoder(**text), **rest)


# Configuration, class, seed, type of the weights, and whether its tensors have the names of transformers 5. No two sizes are equal by chance.
FAMILIES = {
    "llava-default": dict(
        config=lambda: llava(
            dict(hidden_size=20, intermediate_size=28, num_hidden_layers=3, num_attention_heads=4, image_size=15, patch_size=5, projection_dim=16),
            dict(vocab_size=43, hidden_size=24, intermediate_size=38, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
                 rope_theta=900.0, rms_norm_eps=2e-5, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0),
            image_token_index=41, projector_hidden_act="gelu",
        ),
        model=LlavaForConditionalGeneration, seed=41, stored=torch.bfloat16, images=9, newer=True,
    ),
    "llava-full": dict(
        config=lambda: llava(
            dict(hidden_size=18, intermediate_size=26, num_hidden_layers=2, num_attention_heads=3, image_size=14, patch_size=7,
                 hidden_act="gelu", layer_norm_eps=3e-5, projection_dim=16),
            dict(vocab_size=45, hidden_size=32, intermediate_size=30, num_hidden_layers=2, num_attention_heads=2, head_dim=10,
                 max_position_embeddings=48, attention_bias=True, bos_token_id=1, eos_token_id=2, pad_token_id=0),
            image_token_index=42, projector_hidden_act="silu", vision_feature_layer=-1, vision_feature_select_strategy="full",
            multimodal_projector_bias=False,
        ),
        model=LlavaForConditionalGeneration, seed=42, stored=torch.float32, images=5, newer=False,
    ),
    "llava-tied": dict(
        config=lambda: llava(
            dict(hidden_size=16, intermediate_size=22, num_hidden_layers=4, num_attention_heads=2, image_size=24, patch_size=8, projection_dim=16),
            dict(vocab_size=44, hidden_size=28, intermediate_size=34, num_hidden_layers=2, num_attention_heads=7, num_key_value_heads=1,
                 max_position_embeddings=56, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True),
            image_token_index=40, vision_feature_layer=2, tie_word_embeddings=True,
        ),
        model=LlavaForConditionalGeneration, seed=45, stored=torch.float16, images=9, newer=False,
    ),
    # Several states beside each other, not in their order.
    "llava-layers": dict(
        config=lambda: llava(
            dict(hidden_size=16, intermediate_size=26, num_hidden_layers=3, num_attention_heads=2, image_size=12, patch_size=4, projection_dim=16),
            dict(vocab_size=43, hidden_size=20, intermediate_size=30, num_hidden_layers=2, num_attention_heads=5, max_position_embeddings=64, **ENDS),
            image_token_index=41, vision_feature_layer=[-1, 0, -3],
        ),
        model=LlavaForConditionalGeneration, seed=55, stored=torch.bfloat16, images=9, newer=False,
    ),
    # As llava-interleave has it: SigLIP, whose pooling head is not read, all patches, Qwen2 with a tied head.
    "llava-siglip": dict(
        config=lambda: llava(
            dict(hidden_size=24, intermediate_size=30, num_hidden_layers=3, num_attention_heads=3, image_size=20, patch_size=5),
            dict(vocab_size=46, hidden_size=32, intermediate_size=26, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                 rope_theta=5e3, max_position_embeddings=80, tie_word_embeddings=True, **ENDS),
            encoder=SiglipVisionConfig, decoder=Qwen2Config, image_token_index=43, vision_feature_layer=-1,
            vision_feature_select_strategy="full", tie_word_embeddings=True,
        ),
        model=LlavaForConditionalGeneration, seed=51, stored=torch.float16, images=16, newer=False,
    ),
    # `default` leaves out a patch, as there is no class token.
    "llava-siglip-default": dict(
        config=lambda: llava(
            dict(hidden_size=18, intermediate_size=34, num_hidden_layers=2, num_attention_heads=2, image_size=13, patch_size=4,
                 layer_norm_eps=3e-5, vision_use_head=False),
            dict(vocab_size=44, hidden_size=20, intermediate_size=36, num_hidden_layers=3, num_attention_heads=5, num_key_value_heads=5,
                 max_position_embeddings=64, **ENDS),
            encoder=SiglipVisionConfig, decoder=Qwen2Config, image_token_index=42,
        ),
        model=LlavaForConditionalGeneration, seed=52, stored=torch.bfloat16, images=8, newer=True,
    ),
    "llava-dinov2": dict(
        config=lambda: llava(
            dict(hidden_size=24, mlp_ratio=1.5, num_hidden_layers=3, num_attention_heads=4, image_size=12, patch_size=4, qkv_bias=False),
            dict(vocab_size=43, hidden_size=28, intermediate_size=30, num_hidden_layers=2, num_attention_heads=7, max_position_embeddings=64, **ENDS),
            encoder=Dinov2Config, image_token_index=41,
        ),
        model=LlavaForConditionalGeneration, seed=53, stored=torch.float32, images=9, newer=False,
    ),
    "llava-dinov2-gated": dict(
        config=lambda: llava(
            dict(hidden_size=16, mlp_ratio=3, num_hidden_layers=2, num_attention_heads=2, image_size=14, patch_size=7, use_swiglu_ffn=True,
                 use_mask_token=False),
            dict(vocab_size=45, hidden_size=24, intermediate_size=22, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
                 head_dim=10, rope_theta=2e3, max_position_embeddings=48, sliding_window=None, **ENDS),
            encoder=Dinov2Config, decoder=MistralConfig, image_token_index=40, vision_feature_layer=-1,
            vision_feature_select_strategy="full", multimodal_projector_bias=False,
        ),
        model=LlavaForConditionalGeneration, seed=54, stored=torch.bfloat16, images=5, newer=False,
    ),
}


def ids_of(family, image_token, answers, side):
    """Padded ids and mask; the answers, where given, behind the prompts."""
    rows = [BEFORE + [image_token] * family["images"] + row + (answer or []) for row, answer in zip(ROWS, answers)]
    width = max(map(len, rows))
    fill = lambda row, value: [value] * (width - len(row))
    join = (lambda row, values, pad: pad + values) if side == "left" else (lambda row, values, pad: values + pad)
    ids = torch.tensor([join(row, row, fill(row, 0)) for row in rows])
    mask = torch.tensor([join(row, [1] * len(row), fill(row, 0)) for row in rows])
    return ids, mask


def counts(name):
    """Whether a module is inside of blocks, or the connector's."""
    return ".layers." in name or ".layer." in name or "projector" in name


def published(name):
    """A tensor's name in the published folders."""
    if name.startswith("lm_head"):
        return f"language_model.{name}"
    name = name.removeprefix("model.")
    inner = name.removeprefix("language_model.")
    return f"language_model.model.{inner}" if inner != name else name


def newer(name):
    """A tensor's name as transformers 5 writes it."""
    if name.startswith("language_model.lm_head"):
        return name.removeprefix("language_model.")
    inner = name.removeprefix("language_model.model.")
    return f"model.language_model.{inner}" if inner != name else f"model.{name}"


def export(name, folder):
    family = FAMILIES[name]
    config = family["config"]()
    config._attn_implementation = "eager"
    model = randomised(family["model"](config).eval(), family["seed"], family["stored"])
    model.tie_weights()
    text = config.text_config
    model.generation_config.update(bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id)
    image_token, side = config.image_token_index, config.vision_config.image_size
    torch.manual_seed(7)
    pixels = torch.randn(len(ROWS), 3, side, side)
    ids, mask = ids_of(family, image_token, [answer + [text.eos_token_id] for answer in TARGETS], "right")
    labels = ids.masked_fill((mask == 0) | (ids == image_token), -100)
    with torch.no_grad():
        out = model(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels)
        tensors = dict(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels, logits=out.logits, loss=out.loss.reshape(1))

        def run():
            for row in range(len(ROWS)):
                real = mask[row].bool()
                model(pixel_values=pixels[row : row + 1], input_ids=ids[row : row + 1][:, real], attention_mask=mask[row : row + 1][:, real])

        tensors.update({f"stats.{key}": value for key, value in statistics(model, run, counts, published).items()})
        generated = {}
        for search, options in SEARCHES.items():
            found = []
            for row, prompt in enumerate(ROWS):
                whole = torch.tensor([BEFORE + [image_token] * family["images"] + prompt])

                def answer():
                    given = dict(pixel_values=pixels[row : row + 1].to(model.dtype), input_ids=whole, attention_mask=torch.ones_like(whole))
                    tokens = model.generate(**given, do_sample=False, **options)[0, whole.shape[1] :].tolist()
                    return tokens[: tokens.index(2) + 1] if 2 in tokens else tokens

                found.append(answer())
                assert settled(model, model, answer, found[-1], draws=4), f"{name}, {search}, row {row}: rounding could decide it"
            generated[search] = dict(options=options, tokens=found)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    model = model.to(family["stored"])
    model.config.dtype = family["stored"]
    model.save_pretrained(folder)
    if family["newer"]:
        file = folder / "model.safetensors"
        save_file({newer(key): value for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    facts = dict(before=BEFORE + [image_token] * family["images"], image_token=image_token, prompts=ROWS, generate=generated)
    (folder / "golden.json").write_text(json.dumps(facts) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=Path(__file__).parent.parent / "crates/models/tests/goldens")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name in FAMILIES:
        if options.only in name:
            export(name, options.output / name)
            print(name)


if __name__ == "__main__":
    main()
