#!/usr/bin/env python3
"""Writes the golden files of Qwen2-VL and Qwen2.5-VL: tiny model folders and what transformers computes with them.

Usage: python3 scripts/export_qwen_goldens.py [OUTPUT]   (needs torch 2.11, transformers 4.57, numpy and Pillow; default
crates/models/tests/goldens)

Two shapes of each family, one in the layout of 2024 (the language model's settings at the top of `config.json`, its tensors below `model`),
one in the newer one (parts of their own). Weights are rounded to bf16 and stored so. `golden.safetensors` holds the levels of two images
after resizing, token ids of a padded batch (one image in the first row, two in the second) with its logits and loss, and logits after a
chat template's turn about each image; `golden.json` prompts and generated tokens, written only if rounding cannot decide them.
The images are `images/*.png` beside the folders.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

from export_goldens import randomised
from rounding import settled

VOCABULARY = 40
WORDS = "what is red ? there a circle blue on the left of square it yes no green and with two one big small".split()
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>", "<unk>"]
TEMPLATE = (
    "{% set image_count = namespace(value=0) %}{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nis it a circle<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in "
    "content or 'image_url' in content %}{% set image_count.value = image_count.value + 1 %}{% if add_vision_id %}Picture "
    "{{ image_count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QUESTIONS = ["what is red ?", "is there a blue circle on the left of it ?"]
SEARCHES = {
    "greedy": dict(num_beams=1, max_new_tokens=8),
    "beam": dict(num_beams=3, max_new_tokens=6),
    "varied": dict(num_beams=2, repetition_penalty=1.4, length_penalty=-0.5, max_new_tokens=7),
}
# Width and height; the first is made smaller, the second larger.
PICTURES = {"wide": (61, 38), "tall": (11, 26)}

IDS = {text: at for at, text in enumerate(SPECIAL)}
TOKENS = dict(image_token_id=IDS["<|image_pad|>"], video_token_id=IDS["<|video_pad|>"], vision_start_token_id=IDS["<|vision_start|>"],
              vision_end_token_id=IDS["<|vision_end|>"])
ENDS = dict(bos_token_id=IDS["<|endoftext|>"], eos_token_id=IDS["<|im_end|>"], pad_token_id=IDS["<|endoftext|>"])


def text(hidden, inner, layers, heads, keys, sections, theta, tied):
    rope = {"type": "mrope", "mrope_section": sections}
    return dict(vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                num_key_value_heads=keys, rope_theta=theta, rope_scaling=rope, max_position_embeddings=256, rms_norm_eps=1e-6,
                tie_word_embeddings=tied, **ENDS)


def older(width, depth, heads, ratio, patch, merge, words):
    return dict(depth=depth, embed_dim=width, hidden_size=words, mlp_ratio=ratio, num_heads=heads, patch_size=patch, spatial_merge_size=merge,
                temporal_patch_size=2)


def newer(width, inner, depth, heads, patch, merge, words, window, whole):
    return dict(depth=depth, hidden_size=width, intermediate_size=inner, num_heads=heads, patch_size=patch, spatial_merge_size=merge,
                temporal_patch_size=2, out_hidden_size=words, window_size=window, fullatt_block_indexes=whole)


# Seed, class, whether in the newer layout, language model, image encoder.
FOLDERS = {
    "qwen2-vl": (13, 2, False, text(24, 40, 2, 3, 1, [1, 1, 2], 1e4, True), older(16, 2, 2, 2, 4, 2, 24)),
    "qwen2-vl-parts": (4, 2, True, text(32, 28, 2, 2, 2, [2, 3, 3], 1e6, False), older(12, 1, 3, 3, 3, 2, 32)),
    "qwen2_5-vl": (5, 2.5, False, text(16, 36, 2, 2, 1, [0, 2, 2], 1e5, False), newer(16, 20, 3, 2, 4, 2, 16, 16, [1])),
    "qwen2_5-vl-parts": (16, 2.5, True, text(24, 20, 2, 2, 1, [2, 2, 2], 1e6, True), newer(16, 28, 2, 4, 2, 2, 24, 13, [0])),
}
MODELS = {2: (Qwen2VLConfig, Qwen2VLForConditionalGeneration), 2.5: (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration)}


def tokenizer(folder):
    """Whole words."""
    words = SPECIAL + WORDS + [f"word{at}" for at in range(VOCABULARY - len(SPECIAL) - len(WORDS))]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    whole = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=IDS[token], content=token, **flags) for token in SPECIAL],
        "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(words)}, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole) + "\n")
    settings = {
        "added_tokens_decoder": {str(IDS[token]): dict(content=token, **flags) for token in SPECIAL},
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": "<unk>", "model_max_length": 256,
        "tokenizer_class": "Qwen2TokenizerFast", "clean_up_tokenization_spaces": False, "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")


def picture(name):
    width, height = PICTURES[name]
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [np.sin(rows * a + columns * b) for a, b in [(0.31, 0.17), (0.11, -0.41), (-0.23, 0.29)]]
    return Image.fromarray(((np.stack(waves, -1) + 1) * 127.4).astype(np.uint8))


def config_of(number, in_parts, words, vision):
    made = MODELS[number][0]
    config = made(text_config=dict(words), vision_config=vision, **TOKENS) if in_parts else made(vision_config=vision, **TOKENS, **words)
    return config


def stored_as_of_2024(folder, words, vision, number):
    """Rewrites a folder of transformers 4.57 as folders of 2024 are."""
    tensors = load_file(folder / "model.safetensors")
    names = {name: name.replace("model.visual.", "visual.").replace("model.language_model.", "model.") for name in tensors}
    save_file({names[name]: tensor for name, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    config = {
        "architectures": [MODELS[number][1].__name__], "model_type": "qwen2_vl" if number == 2 else "qwen2_5_vl", **words, **TOKENS,
        "vision_config": dict(vision, in_chans=3, spatial_patch_size=vision["patch_size"]), "torch_dtype": "bfloat16",
        "use_sliding_window": False, "max_window_layers": 1, "sliding_window": 128,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def export(name, folder):
    seed, number, in_parts, words, vision = FOLDERS[name]
    folder.mkdir(parents=True, exist_ok=True)
    model = randomised(MODELS[number][1](config_of(number, in_parts, words, vision)).eval(), seed)
    model.tie_weights()
    tokenizer(folder)
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    cell = (patch * merge) ** 2
    images = Qwen2VLImageProcessor(min_pixels=6 * cell, max_pixels=15 * cell, patch_size=patch, merge_size=merge)
    words_of = Qwen2TokenizerFast.from_pretrained(folder)

    def processor(shown, rows):
        """What `Qwen2VLProcessor` does; itself it wants torchvision for videos."""
        seen = images(shown, return_tensors="pt")
        counts = iter([int(grid.prod()) // merge**2 for grid in seen["image_grid_thw"]])
        parts = [row.split("<|image_pad|>") for row in rows]
        rows = [first + "".join("<|image_pad|>" * next(counts) + part for part in rest) for first, *rest in parts]
        read = words_of(rows, padding=True, padding_side="right", return_tensors="pt")
        return dict(input_ids=read["input_ids"], attention_mask=read["attention_mask"], pixel_values=seen["pixel_values"],
                    image_grid_thw=seen["image_grid_thw"])

    tensors, golden = {}, dict(questions=QUESTIONS, searches=SEARCHES, pictures=list(PICTURES), prompts={}, generated={})
    for picture_name in PICTURES:
        shown = picture(picture_name)
        height, width = [side * patch for side in images(shown)["image_grid_thw"][0][1:]]
        levels = np.asarray(shown.resize((int(width), int(height)), Image.BICUBIC))
        tensors[f"levels.{picture_name}"] = torch.from_numpy(levels.transpose(2, 0, 1).copy())
        for question in QUESTIONS:
            turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
            given = processor([shown], [words_of.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)])
            key = f"{picture_name}: {question}"
            golden["prompts"][key] = given["input_ids"][0].tolist()
            with torch.no_grad():
                tensors[f"logits.{key}"] = model(**given).logits[:, -1].contiguous()
            for search, options in SEARCHES.items():
                def answer():
                    cast = dict(given, pixel_values=given["pixel_values"].to(model.dtype))
                    found = model.generate(**cast, do_sample=False, **options)[0, given["input_ids"].shape[1] :].tolist()
                    return found[: found.index(ENDS["eos_token_id"]) + 1] if ENDS["eos_token_id"] in found else found
                found = answer()
                assert settled(model, model, answer, found, draws=3), f"{name}, {key}, {search}: rounding could decide it"
                golden["generated"].setdefault(search, {})[key] = found

    # A padded batch: one image in the first row, two in the second.
    shown = [picture("wide"), picture("tall"), picture("wide")]
    rows = ["<|vision_start|><|image_pad|><|vision_end|>what is red ?",
            "is it<|vision_start|><|image_pad|><|vision_end|>or<|vision_start|><|image_pad|><|vision_end|>there a circle"]
    given = processor(shown, rows)
    labels = given["input_ids"].masked_fill((given["input_ids"] == TOKENS["image_token_id"]) | (given["attention_mask"] == 0), -100)
    with torch.no_grad():
        out = model(**given, labels=labels)
    tensors.update({"input_ids": given["input_ids"], "attention_mask": given["attention_mask"], "labels": labels,
                    "image_grid_thw": given["image_grid_thw"], "logits": out.logits.contiguous(), "loss": out.loss.reshape(1)})
    golden["shown"] = ["wide", "tall", "wide"]
    save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")

    model.generation_config.update(do_sample=False, **ENDS)
    model.to(torch.bfloat16).save_pretrained(folder)
    images.save_pretrained(folder)
    if not in_parts:
        stored_as_of_2024(folder, words, vision, number)


def main():
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "crates/models/tests/goldens"
    (output / "images").mkdir(parents=True, exist_ok=True)
    for name in PICTURES:
        picture(name).save(output / "images" / f"{name}.png", optimize=True)
    for name in FOLDERS:
        export(name, output / name)
        print(name, sum(path.stat().st_size for path in (output / name).iterdir()))


if __name__ == "__main__":
    main()
