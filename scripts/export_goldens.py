#!/usr/bin/env python3
"""Writes the golden files of crates/models: tiny model folders and what transformers computes with them.

Usage: python3 scripts/export_goldens.py [OUTPUT]   (needs torch 2.11 and transformers 4.57; default crates/models/tests/goldens)

Each folder is an ordinary checkpoint (weights rounded to bf16 and stored so) with `golden.safetensors` beside it: token ids, pixels,
image features, Q-Former output, language prefix, forced logits, computed in f32, one row at a time and without padding; and
`golden.json` with generated tokens, up to and including the end token. Sizes are chosen so that every dimension differs from every other
that it could be confused with.

The folders of FAMILIES hold every architecture, each in another of the forms that checkpoints come in (type of the weights, one file or
several, copies and leftovers of old releases), with padded batches, input statistics, and the same configuration as transformers 5 has it.

Generated tokens are written only if rounding cannot decide them (`rounding.py`); seeds are drawn so that this is true of all.
"""

import functools
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipConfig,
    InstructBlipForConditionalGeneration,
)

from rounding import settled

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
    "long": dict(num_beams=4, min_new_tokens=30, max_new_tokens=40),
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
    return randomised(InstructBlipForConditionalGeneration(config).eval(), None)


def randomised(model, seed, stored=torch.bfloat16):
    """Draws every tensor anew, as values that the type `stored` can hold; without a seed the generator keeps its state."""
    if seed is not None:
        torch.manual_seed(seed)
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
            tensor.copy_(tensor.to(stored).float())
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
                def answer():
                    given = dict(shared, pixel_values=shared["pixel_values"].to(model.dtype))
                    found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, **options, **given)[0].tolist()
                    found = found[1:] if encoder_decoder else found[ids.shape[1] :]
                    return found[: found.index(eos) + 1] if eos in found else found
                generated[search].append(answer())
                assert settled(model, model.language_model, answer, generated[search][-1], draws=4), f"{name}, {search}, row {row}: rounding could decide it"
    folder.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(folder)
    save_file(tensors, folder / "golden.safetensors")
    golden = dict(prompts=PROMPTS, answers=ANSWERS, searches=SEARCHES, generated=generated)
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")


PICTURES, ROWS = 3, [[5, 6, 7, 8, 9, 10], [12, 13], [14, 5, 30, 31]]
QFORMER_ROWS = [[5, 16, 7, 8, 9], [12, 13, 21, 22, 23, 24, 25], [14]]
TARGETS = [[20, 21, 22], [23], [24, 25, 26, 27, 28]]

# For each family its class, its seed, the type of its weights, its parts. No two sizes of a folder are the same by chance.
FAMILIES = {
    "instructblip-flant5": dict(
        model=(InstructBlipConfig, InstructBlipForConditionalGeneration), seed=30, stored=torch.bfloat16, queries=5, image_token=50,
        vision=dict(hidden_size=20, intermediate_size=44, num_hidden_layers=3, num_attention_heads=4, image_size=21, patch_size=7, layer_norm_eps=3e-5),
        qformer=dict(vocab_size=43, hidden_size=18, num_hidden_layers=3, num_attention_heads=3, intermediate_size=26,
                     max_position_embeddings=17, cross_attention_frequency=2, layer_norm_eps=2e-5),
        text=dict(model_type="t5", vocab_size=51, d_model=28, d_kv=6, d_ff=34, num_layers=3, num_decoder_layers=2, num_heads=5,
                  relative_attention_num_buckets=12, relative_attention_max_distance=9, feed_forward_proj="gated-gelu", dense_act_fn="gelu",
                  layer_norm_epsilon=2e-4, decoder_start_token_id=0, tie_word_embeddings=False),
    ),
    "instructblip-vicuna": dict(
        model=(InstructBlipConfig, InstructBlipForConditionalGeneration), seed=23, stored=torch.bfloat16, queries=4, image_token=52,
        vision=dict(hidden_size=24, intermediate_size=38, num_hidden_layers=2, num_attention_heads=3, image_size=20, patch_size=5, layer_norm_eps=4e-5),
        qformer=dict(vocab_size=41, hidden_size=22, num_hidden_layers=4, num_attention_heads=2, intermediate_size=30,
                     max_position_embeddings=19, cross_attention_frequency=3, layer_norm_eps=5e-5),
        text=dict(model_type="llama", vocab_size=53, hidden_size=32, intermediate_size=46, num_hidden_layers=3, num_attention_heads=4,
                  num_key_value_heads=2, rope_theta=700.0, max_position_embeddings=61, rms_norm_eps=6e-5, pad_token_id=51),
        shards=60_000,
    ),
    "blip2-flant5": dict(
        model=(Blip2Config, Blip2ForConditionalGeneration), seed=33, stored=torch.float32, queries=3, image_token=48,
        vision=dict(hidden_size=18, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=24, patch_size=8, layer_norm_eps=6e-5),
        qformer=dict(vocab_size=39, hidden_size=20, num_hidden_layers=3, num_attention_heads=4, intermediate_size=28,
                     max_position_embeddings=15, cross_attention_frequency=2, layer_norm_eps=1e-4),
        text=dict(model_type="t5", vocab_size=49, d_model=26, d_kv=7, d_ff=30, num_layers=4, num_decoder_layers=3, num_heads=3,
                  relative_attention_num_buckets=10, relative_attention_max_distance=11, feed_forward_proj="gated-gelu",
                  layer_norm_epsilon=7e-4, decoder_start_token_id=0, tie_word_embeddings=False),
    ),
    "blip2-opt": dict(
        model=(Blip2Config, Blip2ForConditionalGeneration), seed=33, stored=torch.float16, queries=6, image_token=46,
        vision=dict(hidden_size=28, intermediate_size=36, num_hidden_layers=2, num_attention_heads=4, image_size=18, patch_size=6, layer_norm_eps=8e-5),
        qformer=dict(vocab_size=37, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=34,
                     max_position_embeddings=13, cross_attention_frequency=1, layer_norm_eps=9e-5),
        text=dict(model_type="opt", vocab_size=47, hidden_size=30, ffn_dim=42, num_hidden_layers=3, num_attention_heads=5,
                  max_position_embeddings=58, word_embed_proj_dim=30),
    ),
    "blip2-itm": dict(
        model=(Blip2Config, Blip2ForImageTextRetrieval), seed=25, stored=torch.float32, queries=5, image_token=None,
        vision=dict(hidden_size=20, intermediate_size=30, num_hidden_layers=2, num_attention_heads=5, image_size=15, patch_size=5, layer_norm_eps=3e-5),
        qformer=dict(vocab_size=35, hidden_size=16, num_hidden_layers=3, num_attention_heads=4, intermediate_size=22,
                     max_position_embeddings=14, cross_attention_frequency=2, layer_norm_eps=1e-5, use_qformer_text_input=True),
        text=dict(model_type="opt"), retrieval=12,
    ),
}


def padded(rows, side, pad):
    """Ids and mask of rows of different lengths."""
    longest = max(map(len, rows))
    fill = [[pad] * (longest - len(row)) for row in rows]
    join = (lambda f, row, p: f + row) if side == "left" else (lambda f, row, p: row + f)
    ids = [join(f, row, None) for f, row in zip(fill, rows)]
    mask = [join([0] * len(f), [1] * len(row), None) for f, row in zip(fill, rows)]
    return torch.tensor(ids), torch.tensor(mask)


def family_model(family):
    config_class, model_class = family["model"]
    config = config_class(
        vision_config=family["vision"], qformer_config=dict(family["qformer"], encoder_hidden_size=family["vision"]["hidden_size"]),
        text_config=family["text"], num_query_tokens=family["queries"], image_token_index=family["image_token"],
        **({"image_text_hidden_size": family["retrieval"]} if "retrieval" in family else {}),
    )
    config._attn_implementation = "eager"
    model = randomised(model_class(config).eval(), family["seed"], family["stored"])
    if "retrieval" not in family:
        # Pads of the stock classes may lie outside of so small a vocabulary.
        text = config.text_config
        model.generation_config.update(bos_token_id=text.bos_token_id, eos_token_id=text.eos_token_id, pad_token_id=text.pad_token_id)
    return model


def batches(family, config):
    """Batches as the processors make them: image tokens first, then padding where the tokenizer pads left, then the text."""
    image, text = [family["image_token"]] * family["queries"], config.text_config
    decoder_only = text.model_type != "t5"
    pad, eos = text.pad_token_id, text.eos_token_id

    def batch(rows, side):
        ids, mask = padded(rows, side, pad)
        ids = torch.cat([torch.tensor([image] * len(rows)), ids], 1)
        return dict(input_ids=ids, attention_mask=torch.cat([torch.ones(len(rows), len(image), dtype=torch.long), mask], 1))

    begin = [text.bos_token_id] if decoder_only else []
    prompts = [begin + row if decoder_only else row + [eos] for row in ROWS]
    answers = [answer + [eos] for answer in TARGETS]
    if decoder_only:
        train = batch([prompt + answer for prompt, answer in zip(prompts, answers)], "right")
        labels = train["input_ids"].masked_fill(train["attention_mask"] == 0, -100)
        for row, prompt in enumerate(prompts):
            labels[row, : len(image) + len(prompt)] = -100
        made = {"right": dict(train, labels=labels), "left": batch(prompts, "left")}
    else:
        labels, mask = padded(answers, "right", pad)
        labels = labels.masked_fill(mask == 0, -100)
        made = {"right": dict(batch(prompts, "right"), labels=labels), "left": dict(batch(prompts, "left"), labels=labels)}
    if "InstructBlip" in family["model"][1].__name__:
        # The stock processor pads the Q-Former's text on the language model's side; on the right a sample does not depend on its batch.
        ids, mask = padded(QFORMER_ROWS, "right", 0)
        for batch_ in made.values():
            batch_.update(qformer_input_ids=ids, qformer_attention_mask=mask)
    return made, prompts, answers


def outputs(model, family, pixels, batch):
    out = model(pixel_values=pixels, **batch)
    queries = out.qformer_outputs.last_hidden_state[:, : family["queries"]]
    found = dict(
        vision_last_hidden_state=out.vision_outputs.last_hidden_state, qformer_query_output=queries,
        language_model_inputs=model.language_projection(queries.to(model.language_projection.weight.dtype)), logits=out.logits,
    )
    if out.loss is not None:
        found["loss"] = out.loss.reshape(1)
    return {name: tensor.float().contiguous() for name, tensor in found.items()}


def in_blocks(name):
    """Whether a module of the BLIP-2 family is inside of the towers' blocks."""
    return name.startswith(("vision_model.encoder.", "qformer.encoder.", "language_model.")) and "lm_head" not in name


def statistics(model, run, counts=in_blocks, named=str):
    """Sum, sum of squares and number of the inputs of every linear whose name `counts`, under the names that `named` gives."""
    seen, hooks = {}, []
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear) and counts(name):
            def note(_, inputs, name=named(name)):
                x = inputs[0].reshape(-1, inputs[0].shape[-1]).double()
                rows, total, squares = seen.get(name, (0, 0, 0))
                seen[name] = (rows + x.shape[0], total + x.sum(0), squares + (x * x).sum(0))
            hooks.append(module.register_forward_pre_hook(note))
    run()
    for hook in hooks:
        hook.remove()
    found = {}
    for name, (rows, total, squares) in seen.items():
        found.update({f"{name}.rows": torch.tensor([rows]), f"{name}.sum": total.float(), f"{name}.sqsum": squares.float()})
    return found


def single(batch, row):
    """A sample alone: without any padding, which the language model's text and the Q-Former's have of their own."""
    def keep(ids, mask):
        return ids[row : row + 1][:, mask[row].bool()]
    mask = batch["attention_mask"]
    alone = {"input_ids": keep(batch["input_ids"], mask)}
    alone["attention_mask"] = torch.ones_like(alone["input_ids"])
    if "labels" in batch:
        labels = batch["labels"]
        alone["labels"] = keep(labels, mask) if labels.shape == mask.shape else labels[row : row + 1][:, labels[row] != -100]
    if "qformer_input_ids" in batch:
        alone["qformer_input_ids"] = keep(batch["qformer_input_ids"], batch["qformer_attention_mask"])
        alone["qformer_attention_mask"] = torch.ones_like(alone["qformer_input_ids"])
    return alone


def version_5(config):
    """The configuration as transformers 5 writes it: defaults spelled out, rotary settings in one entry, T5 said to be tied."""
    written = config.to_diff_dict()
    text = written.get("text_config", {})
    for field in ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"):
        text.setdefault(field, getattr(config.text_config, field, None))
    if "rope_theta" in text:
        text["rope_parameters"] = {"rope_theta": text.pop("rope_theta"), "rope_type": "default"}
        text.pop("rope_scaling", None)
    if text.get("model_type") == "t5":
        text["tie_word_embeddings"] = True
    for part in ("vision_config", "qformer_config", "text_config"):
        written[part]["dtype"] = written["dtype"]
    written["transformers_version"] = "5.0.0"
    return written


def leftovers(model, name):
    """Tensors that old releases wrote beside the weights."""
    state = model.state_dict()
    positions = lambda count: torch.arange(count).reshape(1, -1)
    if name == "instructblip-vicuna":
        head = model.config.text_config.head_dim
        inverse = model.config.text_config.rope_theta ** -(torch.arange(0, head, 2).float() / head)
        layers = model.config.text_config.num_hidden_layers
        extra = {f"language_model.model.layers.{i}.self_attn.rotary_emb.inv_freq": inverse.clone() for i in range(layers)}
        extra["qformer.embeddings.position_ids"] = positions(model.config.qformer_config.max_position_embeddings)
        return extra
    if name == "blip2-flant5":
        shared = state["language_model.shared.weight"]
        return {f"language_model.{stack}.embed_tokens.weight": shared.clone() for stack in ("encoder", "decoder")}
    if name == "blip2-opt":
        return {"language_model.lm_head.weight": state["language_model.model.decoder.embed_tokens.weight"].clone()}
    if name == "blip2-itm":
        return {"embeddings.position_ids": positions(model.config.qformer_config.max_position_embeddings)}
    return {}


def save(model, name, family, folder):
    """The folder as `save_pretrained` writes it, with what old releases had besides."""
    stored = family["stored"]
    model = model.to(stored)
    model.config.dtype = stored
    model.save_pretrained(folder, max_shard_size=family.get("shards", "5GB"))
    extra = leftovers(model, name)
    if extra:
        last = sorted(folder.glob("model*.safetensors"))[-1]
        tensors = load_file(last)
        tensors.update({key: value.to(stored) if value.is_floating_point() and "inv_freq" not in key else value for key, value in extra.items()})
        save_file(tensors, last, metadata={"format": "pt"})
        listed = folder / "model.safetensors.index.json"
        if listed.exists():
            index = json.loads(listed.read_text())
            index["weight_map"].update({key: last.name for key in extra})
            listed.write_text(json.dumps(index, indent=2) + "\n")
    (folder / "config.v5.json").write_text(json.dumps(version_5(model.config), indent=2) + "\n")
    return model


def export_family(name, folder):
    family = FAMILIES[name]
    model = family_model(family)
    for old in folder.glob("*"):
        old.unlink()
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(6)
    side = family["vision"]["image_size"]
    pixels = torch.randn(PICTURES, 3, side, side)
    with torch.no_grad():
        tensors, facts = (retrieval if "retrieval" in family else writing)(model, family, pixels)
    save(model, name, family, folder)
    save_file({key: value.clone().contiguous() for key, value in tensors.items()}, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(facts) + "\n")


def writing(model, family, pixels):
    made, prompts, answers = batches(family, model.config)
    tensors = {"pixel_values": pixels}
    for side, batch in made.items():
        tensors.update({f"{side}.{key}": value for key, value in batch.items()})
        tensors.update({f"{side}.{key}": value for key, value in outputs(model, family, pixels, batch).items()})
    samples = [0, 1]
    def run():
        for row in samples:
            model(pixel_values=pixels[row : row + 1], **single(made["right"], row))
    tensors.update({f"stats.{key}": value for key, value in statistics(model, run).items()})

    generated = {}
    prompt_batch = {key: value for key, value in made["left"].items() if key != "labels"}
    if model.config.text_config.model_type == "t5":
        prompt_batch = {key: value for key, value in made["right"].items() if key != "labels"}
    eos = model.config.text_config.eos_token_id
    start = 1 if model.config.text_config.model_type == "t5" else prompt_batch["input_ids"].shape[1]
    for search, options in SEARCHES.items():
        def answers_of(pictures, batch, begin):
            found = model.generate(pixel_values=pictures.to(model.dtype), **batch, do_sample=False, **options)[:, begin:].tolist()
            return [row[: row.index(eos) + 1] if eos in row else row for row in found]
        found = []
        for row in range(PICTURES):
            alone = single(prompt_batch, row)
            answer = functools.partial(answers_of, pixels[row : row + 1], alone, start if start == 1 else alone["input_ids"].shape[1])
            found += (tokens := answer())
            assert settled(model, model.language_model, answer, tokens, draws=4), f"{search}, row {row}: rounding could decide it"
        # Whole lengths count padding too, and the penalty falls on it.
        if start == 1 or not options.keys() & {"max_length", "repetition_penalty"} and options:
            assert answers_of(pixels, prompt_batch, start) == found, f"{search}: padding changes a row"
        generated[search] = dict(options=options, tokens=found)

    # A copy in half precision, for how far rounding alone takes the results.
    half = family["model"][1](model.config).eval().to(torch.bfloat16)
    half.load_state_dict(model.state_dict())
    found = outputs(half, family, pixels.to(torch.bfloat16), made["right"])
    tensors.update({f"bf16.{key}": found[key] for key in ("logits", "loss")})
    facts = dict(prompts=prompts, answers=answers, qformer=QFORMER_ROWS, samples=samples, queries=family["queries"], generate=generated)
    return tensors, facts


def retrieval(model, family, pixels):
    captions = [[2, 5, 6, 7, 8, 3], [2, 12, 3], [2, 14, 30, 31, 3]]
    ids, mask = padded(captions, "right", 0)
    side = family["vision"]["image_size"]
    large = torch.randn(PICTURES, 3, side + 10, side + 10)
    tensors = {"input_ids": ids, "attention_mask": mask, "pixel_values": pixels, "large.pixel_values": large}
    forward = model.vision_model.forward
    for prefix, images in (("", pixels), ("large.", large)):
        model.vision_model.forward = functools.partial(forward, interpolate_pos_encoding=bool(prefix))
        found = model(pixel_values=images, input_ids=ids, attention_mask=mask)
        tensors[f"{prefix}vision_last_hidden_state"] = found.vision_model_output.last_hidden_state
        tensors[f"{prefix}image_embeds"], tensors[f"{prefix}text_embeds"] = found.image_embeds, found.text_embeds
        tensors[f"{prefix}contrast"] = found.logits_per_image
        matched = model(pixel_values=images, input_ids=ids, attention_mask=mask, use_image_text_matching_head=True)
        tensors[f"{prefix}matching_logits"] = matched.logits_per_image
    model.vision_model.forward = forward
    return tensors, dict(captions=captions, queries=family["queries"])


def main():
    default = Path(__file__).parent.parent / "crates/models/tests/goldens"
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    for name in TEXT:
        export(name, output / name)
    for name in FAMILIES:
        export_family(name, output / name)


if __name__ == "__main__":
    main()
