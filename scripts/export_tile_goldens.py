#!/usr/bin/env python3
"""Writes the golden files of Idefics3, SmolVLM and InternVL: tiny model folders and what transformers computes with them.

Usage: python3 scripts/export_tile_goldens.py [OUTPUT] [--only TEXT]   (needs torch 2.11, transformers 4.57, numpy and Pillow; default
crates/models/tests/goldens)

`golden.safetensors` holds the levels of the tiles of two images, a padded batch (one image in the first row, two in the second) with logits
and loss, another with padding within its tiles (InternVL has none), sums over what every linear reads, and logits after a chat template's turn about each image;
`golden.json` prompts and generated tokens, written only if rounding cannot decide them. The images are those of `export_qwen_goldens.py`.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    GotOcr2ImageProcessor,
    Idefics3Config,
    Idefics3ForConditionalGeneration,
    Idefics3ImageProcessor,
    Idefics3Processor,
    InternVLConfig,
    InternVLForConditionalGeneration,
    PreTrainedTokenizerFast,
    SmolVLMConfig,
    SmolVLMForConditionalGeneration,
    SmolVLMImageProcessor,
)

from transformers.models.got_ocr2.image_processing_got_ocr2 import get_optimal_tiled_canvas

from export_goldens import randomised, statistics
from export_qwen_goldens import PICTURES, QUESTIONS, SEARCHES, WORDS, picture
from rounding import settled

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", "<unk>"]
SPECIAL += [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
# InternVL's words in place of some of them.
OTHERS = {"<fake_token_around_image>": "<img>", "<image>": "<IMG_CONTEXT>", "<global-img>": "</img>"}
VOCABULARY = len(SPECIAL) + len(WORDS) + 5
IDS = {text: at for at, text in enumerate(SPECIAL)}
ENDS = dict(bos_token_id=IDS["<|im_start|>"], eos_token_id=IDS["<end_of_utterance>"], pad_token_id=IDS["<|endoftext|>"])
IMAGE = IDS["<image>"]
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}{% if message['content'][0]['type'] == 'image' %}{{ ':' }}"
    "{% else %}{{ ': ' }}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def side_of(size):
    return size[0] if isinstance(size, list) else size


def vision(width, inner, layers, heads, side, patch):
    return dict(hidden_size=width, intermediate_size=inner, num_hidden_layers=layers, num_attention_heads=heads, image_size=side, patch_size=patch)


def text(hidden, inner, layers, heads, keys, theta, tied, **rest):
    return dict(model_type="llama", vocab_size=VOCABULARY, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
                num_attention_heads=heads, num_key_value_heads=keys, rope_theta=theta, max_position_embeddings=512, rms_norm_eps=1e-5,
                tie_word_embeddings=tied, **ENDS, **rest)


# Seed, class, scale, type of the weights, settings of images, image encoder, language model.
FOLDERS = {
    "smolvlm": (61, "smolvlm", 2, torch.bfloat16, dict(size={"longest_edge": 48}), vision(24, 36, 2, 3, 16, 4), text(32, 28, 2, 4, 2, 1e4, False)),
    "smolvlm-thirds": (62, "smolvlm", 3, torch.float16, dict(size={"longest_edge": 36}, resample=3), vision(16, 28, 3, 2, 18, 3),
                       text(24, 40, 2, 3, 1, 5e3, True)),
    "idefics3": (63, "idefics3", 1, torch.float32, dict(size={"longest_edge": 30}), vision(20, 24, 2, 5, 10, 5), text(28, 36, 2, 7, 7, 5e5, False)),
    "internvl": (65, "internvl", 2, torch.bfloat16, dict(max_patches=6),
                 dict(vision(12, 16, 2, 3, [8, 8], [2, 2]), attention_bias=True, layer_scale_init_value=0.5),
                 dict(text(16, 12, 2, 4, 2, 1e6, False, rope_scaling=dict(rope_type="dynamic", factor=2.0)), model_type="qwen2")),
    "internvl-llama": (66, "internvl", 1, torch.bfloat16, dict(min_patches=2, max_patches=4), vision(8, 12, 3, 2, 4, 2),
                       text(12, 16, 2, 3, 3, 5e5, False)),
    "internvl-one": (67, "internvl", 4, torch.float16, dict(max_patches=1, resample=2), vision(8, 12, 2, 2, 16, 4),
                     dict(text(12, 20, 3, 3, 1, 1e4, True), model_type="qwen2")),
    "idefics3-whole": (64, "idefics3", 2, torch.bfloat16, dict(do_image_splitting=False), vision(12, 32, 3, 2, 24, 4),
                       text(20, 24, 3, 2, 1, 1e4, False, head_dim=12)),
}
MODELS = dict(smolvlm=(SmolVLMConfig, SmolVLMForConditionalGeneration, SmolVLMImageProcessor),
              idefics3=(Idefics3Config, Idefics3ForConditionalGeneration, Idefics3ImageProcessor),
              internvl=(InternVLConfig, InternVLForConditionalGeneration, GotOcr2ImageProcessor))


expanded = InternVLForConditionalGeneration._expand_inputs_for_generation


def whole_images(expand_size=1, is_encoder_decoder=False, input_ids=None, **inputs):
    """Beams with all tiles of their image: `generate` repeats tiles one by one, so that the first beam sees the first tile several times."""
    tiles = inputs.pop("pixel_values", None)
    input_ids, inputs = expanded(expand_size, is_encoder_decoder, input_ids, **inputs)
    return input_ids, inputs if tiles is None else dict(inputs, pixel_values=tiles.repeat(expand_size, 1, 1, 1))


InternVLForConditionalGeneration._expand_inputs_for_generation = staticmethod(whole_images)


class Contexts:
    """`InternVLProcessor` for images alone: its own wants packages for videos."""

    def __init__(self, images, words, features):
        self.images, self.words, self.features = images, words, features

    def __call__(self, images, text, **options):
        shown = self.images([one for row in images for one in row], crop_to_patches=True, return_tensors="pt")
        counts = iter(shown["num_patches"].tolist())
        spelled = []
        for row in text:
            parts = row.split("<IMG_CONTEXT>")
            spelled.append(parts[0] + "".join(f"<img>{'<IMG_CONTEXT>' * self.features * next(counts)}</img>{part}" for part in parts[1:]))
        return dict(self.words(spelled, **options), pixel_values=shown["pixel_values"])


def tokenizer(folder, kind):
    """Whole words, and line feeds."""
    own = [OTHERS.get(token, token) if kind == "internvl" else token for token in SPECIAL]
    words = own + ["\n", "User:", "Assistant:"] + WORDS
    words += [f"word{at}" for at in range(VOCABULARY - len(words))]
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    cut = lambda at, behaviour: {"type": "Split", "pattern": {"String": at}, "behavior": behaviour, "invert": False}
    whole = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [dict(id=at, content=token, **flags) for at, token in enumerate(own)],
        "normalizer": None, "pre_tokenizer": {"type": "Sequence", "pretokenizers": [cut(" ", "Removed"), cut("\n", "Isolated")]},
        "post_processor": None, "decoder": None,
        "model": {"type": "WordLevel", "vocab": {word: at for at, word in enumerate(words)}, "unk_token": "<unk>"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(whole) + "\n")
    settings = {
        "added_tokens_decoder": {str(at): dict(content=token, **flags) for at, token in enumerate(own)},
        "bos_token": "<|im_start|>", "eos_token": "<end_of_utterance>", "pad_token": "<|endoftext|>", "unk_token": "<unk>", "model_max_length": 512,
        "tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, "model_input_names": ["input_ids", "attention_mask"],
    }
    if kind == "internvl":
        settings |= dict(start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE.replace("<image>", own[IMAGE]))


def published(name):
    """A linear's name in the network."""
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.")
    return name.removeprefix("model.").replace("text_model.", "language_model.model.")


def counts(name):
    return ".layers." in name or ".layer." in name or "connector" in name or "projector" in name


def export(name, folder):
    seed, kind, scale, stored, settings, encoder, words = FOLDERS[name]
    config_of, model_of, images_of = MODELS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*"):
        old.unlink()
    image = OTHERS["<image>"] if kind == "internvl" else "<image>"
    features = (side_of(encoder["image_size"]) // side_of(encoder["patch_size"]) // scale) ** 2
    own = dict(downsample_ratio=1 / scale, image_seq_length=features) if kind == "internvl" else dict(scale_factor=scale)
    config = config_of(vision_config=dict(encoder), text_config=dict(words), image_token_id=IMAGE, pad_token_id=ENDS["pad_token_id"], **own)
    config._attn_implementation = "eager"
    model = randomised(model_of(config).eval(), seed, stored)
    model.tie_weights()
    model.generation_config.update(do_sample=False, **ENDS)
    tokenizer(folder, kind)
    side, patch = side_of(encoder["image_size"]), side_of(encoder["patch_size"])
    words_of = PreTrainedTokenizerFast.from_pretrained(folder)
    if kind == "internvl":
        images = images_of(size=dict(height=side, width=side), crop_to_patches=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, **settings)
        processor = Contexts(images, words_of, features)
    else:
        images = images_of(max_image_size={"longest_edge": side}, **settings)
        # Its own processor wants packages for videos; it writes the same prompts.
        processor = Idefics3Processor(Idefics3ImageProcessor(max_image_size={"longest_edge": side}, **settings), words_of, image_seq_len=features)

    def processed(shown, rows):
        return dict(processor(images=shown, text=rows, padding=True, padding_side="right", return_tensors="pt"))

    tensors, golden = {}, dict(questions=QUESTIONS, searches=SEARCHES, pictures=list(PICTURES), prompts={}, generated={}, grids={})
    for picture_name in PICTURES:
        shown = picture(picture_name)
        if kind == "internvl":
            seen = images([shown], do_rescale=False, do_normalize=False, return_tensors="pt")["pixel_values"]
            columns, rows = get_optimal_tiled_canvas((shown.height, shown.width), (side, side), images.min_patches, images.max_patches)
            tensors[f"levels.{picture_name}"] = seen.to(torch.uint8)
            golden["grids"][picture_name] = [rows, columns] if rows * columns > 1 else [0, 0]
        else:
            seen = images([shown], do_rescale=False, do_normalize=False, return_row_col_info=True, return_tensors="pt")
            tensors[f"levels.{picture_name}"] = seen["pixel_values"][0].to(torch.uint8)
            golden["grids"][picture_name] = [seen["rows"][0][0], seen["cols"][0][0]]
        for question in QUESTIONS:
            turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
            whole = words_of.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            given = processed([[shown]], [whole])
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
        turn = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTIONS[0]}]}]
        whole = words_of.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
        with torch.no_grad():
            model(**processed([[picture("wide")]], [whole]))

    tensors.update({f"stats.{key}": value for key, value in statistics(model, run, counts, published).items()})

    # A padded batch: one image in the first row, two in the second.
    rows = [f"{image}what is red ?", f"is it {image} or {image} there a circle"]
    given = processed([[picture("wide")], [picture("tall"), picture("wide")]], rows)
    labels = given["input_ids"].masked_fill((given["input_ids"] == IMAGE) | (given["attention_mask"] == 0), -100)
    with torch.no_grad():
        out = model(**given, labels=labels)
    tensors.update({"input_ids": given["input_ids"], "attention_mask": given["attention_mask"], "labels": labels,
                    "logits": out.logits.contiguous(), "loss": out.loss.reshape(1)})
    if kind == "internvl":
        tensors["pixel_values"] = given["pixel_values"]
    golden["shown"] = [["wide"], ["tall", "wide"]]

    if kind != "internvl":
        # Padding within tiles: a rectangle of each is real.
        torch.manual_seed(seed)
        pixels, mask = torch.randn(1, 3, 3, side, side), torch.zeros(1, 3, side, side, dtype=torch.int64)
        for tile, (down, across) in enumerate([(side, side), (side - patch, side), (patch + 1, side - patch)]):
            mask[0, tile, :down, :across] = 1
        ids = torch.tensor([[9] + [IMAGE] * 3 * features + [20, 21]])
        with torch.no_grad():
            logits = model(pixel_values=pixels, pixel_attention_mask=mask, input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        tensors.update({"padded.pixel_values": pixels, "padded.pixel_attention_mask": mask, "padded.input_ids": ids, "padded.logits": logits.contiguous()})
    save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")

    model = model.to(stored)
    model.config.dtype = stored
    model.save_pretrained(folder)
    images.save_pretrained(folder)
    of_prompts = {"image_seq_length": features, "processor_class": "InternVLProcessor"} if kind == "internvl" else {
        "image_seq_len": features, "processor_class": "Idefics3Processor"}
    (folder / "processor_config.json").write_text(json.dumps(of_prompts, indent=2) + "\n")


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
