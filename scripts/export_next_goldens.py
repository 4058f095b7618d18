#!/usr/bin/env python3
"""Writes the golden files of LLaVA-NeXT: tiny model folders and what transformers computes with them.

Usage: python3 scripts/export_next_goldens.py [OUTPUT] [--only TEXT]   (needs torch 2.11, transformers 4.57, numpy and Pillow; default
crates/models/tests/goldens)

`golden.safetensors` holds the levels of the tiles of the images, the whole first, a padded batch (one image in the first row, two in the second)
with logits and loss, sums over what every linear reads, and logits after a chat template's turn about each image; `golden.json` sizes, prompts
and generated tokens, written only if rounding cannot decide them. The images are those of `export_qwen_goldens.py`.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessor,
    LlavaNextProcessor,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    SiglipVisionConfig,
)

from export_composed_goldens import counts, newer, published
from export_goldens import randomised, statistics
from export_qwen_goldens import PICTURES, QUESTIONS, SEARCHES, WORDS, picture
from rounding import settled

SPECIAL = ["<unk>", "<s>", "</s>", "<pad>", "<image>"]
VOCABULARY = len(SPECIAL) + len(WORDS) + 7
IDS = {text: at for at, text in enumerate(SPECIAL)}
ENDS = dict(bos_token_id=IDS["<s>"], eos_token_id=IDS["</s>"], pad_token_id=IDS["<pad>"])
IMAGE = IDS["<image>"]
IMAGES = "{% for content in message['content'] if content['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
TEXTS = "{% for content in message['content'] if content['type'] == 'text' %}{{ content['text'] }}{% endfor %}"
TEMPLATES = {
    "mistral": "<s>{% for message in messages %}[INST] " + IMAGES + TEXTS + " [/INST]{% endfor %}",
    "vicuna": "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] | upper + ': ' }}{% endif %}" + IMAGES + TEXTS
    + " {% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
}


def clip(width, inner, layers, heads, side, patch):
    return CLIPVisionConfig(hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, image_size=side,
                            patch_size=patch, projection_dim=16)


def words(decoder, hidden, inner, layers, heads, keys, theta, **rest):
    return decoder(vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads,
                   num_key_value_heads=keys, rope_theta=theta, max_position_embeddings=512, rms_norm_eps=1e-5, **ENDS, **rest)


# Seed, type of the weights, whether its tensors have the names of transformers 5, template, settings of images, and the configuration.
FOLDERS = {
    "llava-next": dict(
        seed=71, stored=torch.bfloat16, newer=False, template="mistral", images={},
        config=lambda: LlavaNextConfig(
            clip(24, 36, 3, 3, 16, 4), words(MistralConfig, 32, 28, 2, 4, 2, 1e4, sliding_window=None), image_token_index=IMAGE,
            image_grid_pinpoints=[[16, 32], [32, 16], [32, 32], [48, 16], [16, 48]],
        ),
    ),
    "llava-next-layers": dict(
        seed=72, stored=torch.float16, newer=True, template="vicuna", images=dict(resample=2),
        config=lambda: LlavaNextConfig(
            clip(16, 28, 3, 2, 13, 3), words(LlamaConfig, 24, 40, 2, 3, 1, 5e3, head_dim=10), image_token_index=IMAGE,
            image_grid_pinpoints=[[26, 26], [13, 39], [39, 13]], vision_feature_layer=[2, 0, -1], projector_hidden_act="silu",
            multimodal_projector_bias=False,
        ),
    ),
    "llava-next-full": dict(
        seed=73, stored=torch.float32, newer=False, template="vicuna", images=dict(image_mean=[0.5] * 3, image_std=[0.5] * 3),
        config=lambda: LlavaNextConfig(
            SiglipVisionConfig(hidden_size=20, intermediate_size=24, num_hidden_layers=2, num_attention_heads=5, image_size=20, patch_size=5,
                               vision_use_head=False),
            words(Qwen2Config, 28, 36, 2, 7, 7, 5e5, tie_word_embeddings=True), image_token_index=IMAGE, image_grid_pinpoints=[[20, 20], [60, 20], [20, 80]],
            vision_feature_layer=-1, vision_feature_select_strategy="full", tie_word_embeddings=True,
        ),
    ),
}


def tokenizer(folder, template):
    """Whole words, and line feeds."""
    known = SPECIAL + ["\n", "USER:", "ASSISTANT:", "[INST]", "[/INST]"] + WORDS
    known += [f"word{at}" for at in range(VOCABULARY - len(known))]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    cut = lambda at, behaviour: {"type": "Split", "pattern": {"String": at}, "behavior": behaviour, "invert": False}
    whole = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=IDS[token], content=token, **flags) for token in SPECIAL],
        "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut(" ", "Removed"), cut("\n", "Isolated")]},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(known)}, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole) + "\n")
    settings = {
        "added_tokens_decoder": {str(IDS[token]): dict(content=token, **flags) for token in SPECIAL},
        "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>", "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATES[template])


def export(name, folder):
    family = FOLDERS[name]
    seed, stored = family["seed"], family["stored"]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    config = family["config"]()
    config._attn_implementation = "eager"
    model = randomised(LlavaNextForConditionalGeneration(config).eval(), seed, stored)
    model.tie_weights()
    model.generation_config.update(do_sample=False, **ENDS)
    tokenizer(folder, family["template"])
    side, patch = config.vision_config.image_size, config.vision_config.patch_size
    images = LlavaNextImageProcessor(size={"shortest_edge": side}, crop_size=side, image_grid_pinpoints=config.image_grid_pinpoints, **family["images"])
    words_of = PreTrainedTokenizerFast.from_pretrained(folder)
    settings = dict(patch_size=patch, vision_feature_select_strategy=config.vision_feature_select_strategy,
                    num_additional_image_tokens=int(config.vision_config.model_type == "clip_vision_model"))
    processor = LlavaNextProcessor(images, words_of, **settings)

    def processed(shown, rows):
        given = dict(processor(images=shown, text=rows, padding=True, padding_side="right", return_tensors="pt"))
        assert given["image_sizes"].tolist() == [[image.height, image.width] for image in shown]
        return given

    def turn(question):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        return words_of.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False)

    tensors, golden = {}, dict(questions=QUESTIONS, searches=SEARCHES, pictures=list(PICTURES), prompts={}, generated={}, sizes={})
    for picture_name in PICTURES:
        shown = picture(picture_name)
        golden["sizes"][picture_name] = [shown.height, shown.width]
        tensors[f"levels.{picture_name}"] = images([shown], do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"][0].to(torch.uint8)
        for question in QUESTIONS:
            given = processed([shown], [turn(question)])
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

    def run():
        with torch.no_grad():
            model(**processed([picture("wide")], [turn(QUESTIONS[0])]))

    tensors.update({f"stats.{key}": value for key, value in statistics(model, run, counts, published).items()})

    # A padded batch: one image in the first row, two in the second.
    rows = ["<image> what is red ?", "is it <image> or <image> there a circle"]
    given = processed([picture("wide"), picture("tall"), picture("wide")], rows)
    labels = given["input_ids"].masked_fill((given["input_ids"] == IMAGE) | (given["attention_mask"] == 0), -100)
    with torch.no_grad():
        out = model(**given, labels=labels)
    tensors.update({"input_ids": given["input_ids"], "attention_mask": given["attention_mask"], "labels": labels,
                    "logits": out.logits.contiguous(), "loss": out.loss.reshape(1)})
    golden["shown"] = ["wide", "tall", "wide"]
    save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")

    model = model.to(stored)
    model.config.dtype = stored
    model.save_pretrained(folder)
    if family["newer"]:
        file = folder / "model.safetensors"
        save_file({newer(key): value for key, value in load_file(file).items()}, file, metadata={"format": "pt"})
    images.save_pretrained(folder)
    (folder / "processor_config.json").write_text(json.dumps(dict(settings, image_token="<image>", processor_class="LlavaNextProcessor"), indent=2) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", nargs="?", type=Path, default=Path(__file__).parent.parent / "crates/models/tests/goldens")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    for name in FOLDERS:
        if options.only in name:
            export(name, options.output / name)
            print(name, sum(path.stat().st_size for path in (options.output / name).iterdir()))


if __name__ == "__main__":
    main()
