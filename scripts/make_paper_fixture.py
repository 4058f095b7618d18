#!/usr/bin/env python3
"""Writes a miniature of everything that experiments/paper needs: benchmarks and corpora in their published formats under one root, and
three tiny random checkpoints (InstructBLIP-FlanT5, InstructBLIP-Vicuna, BLIP-2 image-text matching).

Usage: python3 scripts/make_paper_fixture.py OUTPUT [--data-only] [--images N] [--seed S]
Needs pillow; for the checkpoints also torch, transformers 4.57 and tokenizers. Everything is made up.

When done it prints a command that sweeps over what it made. Paths in it are absolute: those of experiments start at the workspace, not
at the current folder.
"""

import argparse
import json
import random
import shlex
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = ["red", "green", "blue", "yellow", "white", "black"]
THINGS = ["box", "ball", "kite", "ladder", "cup", "window"]
PLACES = ["on a table", "in the grass", "near the sea", "under a tree"]
KINDS = [("what color is the {}?", "other", 0), ("is there a {} in the picture?", "yes/no", 1), ("how many {}s are there?", "number", 2)]


def caption(draw):
    return f"A {draw.choice(COLORS)} {draw.choice(THINGS)}, {draw.choice(PLACES)}."


def picture(path, draw, size):
    """A picture of a few rectangles, as its suffix says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, draw.choice(COLORS))
    pen = ImageDraw.Draw(image)
    for _ in range(4):
        x, y = draw.randrange(size[0]), draw.randrange(size[1])
        pen.rectangle([x, y, x + size[0] // 3, y + size[1] // 3], fill=draw.choice(COLORS))
    image.save(path, **({"quality": 60} if path.suffix == ".jpg" else {}))


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=None, separators=(", ", ": ")).replace("}, {", "},\n {") + "\n")


def answers(draw, kind):
    said = {"other": COLORS, "yes/no": ["yes", "no"], "number": ["1", "2", "3"]}[kind]
    usual = draw.choice(said)
    given = [usual if draw.random() < 0.7 else draw.choice(said) for _ in range(10)]
    return [dict(answer=answer, answer_confidence="yes", answer_id=number + 1) for number, answer in enumerate(given)]


def data(root, count, seed, size):
    draw = random.Random(seed)
    sizes = lambda: (draw.randrange(size * 3 // 4, size), draw.randrange(size * 3 // 4, size))
    coco = [f"val2014/COCO_val2014_{number:012d}.jpg" for number in range(1, count + 1)]
    for name in coco:
        picture(root / "coco/images" / name, draw, sizes())
    for task, annotations, first in [
        ("vqav2", "v2_mscoco_val2014_annotations.json", 1000), ("okvqa", "mscoco_val2014_annotations.json", 5000)
    ]:
        questions, truth = [], []
        for number, name in enumerate(coco * 2):
            template, kind, _ = KINDS[number % 3]
            question = template.format(draw.choice(THINGS))
            identity, image = first + number, number % count + 1
            questions.append(dict(image=name, question=question, question_id=identity, dataset="vqa"))
            truth.append(dict(
                question_id=identity, image_id=image, question_type="what", answer_type=kind, answers=answers(draw, kind),
            ))
        draw.shuffle(truth)
        write(root / task / "annotations/vqa_val_eval.json", questions)
        write(root / task / "annotations" / annotations, dict(info={}, data_subtype="val2014", annotations=truth))

    questions = []
    for number in range(2 * count):
        name = f"n{number % count:06d}.jpg"
        picture(root / "gqa/images" / name, draw, sizes())
        template, kind, _ = KINDS[number % 2]
        answer = draw.choice(["yes", "no"] if kind == "yes/no" else COLORS)
        questions.append(dict(image=name, question=template.format(draw.choice(THINGS)), answer=answer, question_id=f"{number:08d}"))
    write(root / "gqa/annotations/testdev_balanced_questions.json", questions)

    listed, images, references = [], [], []
    for number in range(count):
        name = f"val/{number:016x}.jpg"
        picture(root / "nocaps/images" / name, draw, sizes())
        listed.append(dict(image=name, img_id=number))
        domain = ["in-domain", "near-domain", "out-domain"][number % 3]
        images.append(dict(id=number, file_name=name[4:], domain=domain, width=64, height=64))
        for _ in range(10):
            references.append(dict(image_id=number, id=len(references), caption=caption(draw)))
    write(root / "nocaps/annotations/nocaps_val.json", listed)
    write(
        root / "nocaps/annotations/nocaps_val_4500_captions.json",
        dict(licenses=[], info={}, images=images, annotations=references),
    )

    pairs = []
    for number in range(count):
        name = f"flickr30k-images/{1000 + number}.jpg"
        picture(root / "flickr30k/images" / name, draw, sizes())
        pairs.append(dict(image=name, caption=[caption(draw) for _ in range(5)]))
    write(root / "flickr30k/annotations/test.json", pairs)

    for annotations, folder, name in [
        ("coco/annotations/coco_karpathy_train.json", "coco/images", "train2014/COCO_train2014_{:012d}.jpg"),
        ("vg/annotations/vg_caption.json", "vg/images/VG_100K", "{}.jpg"),
        ("conceptual_caption/annotations/cc3m.json", "conceptual_caption/images", "{}_7.png"),
    ]:
        entries = []
        for number in range(2 * count):
            image = name.format(number // 2 + 1)
            if number % 2 == 0:
                picture(root / folder / image, draw, sizes())
            entries.append(dict(image=image, caption=caption(draw), image_id=f"train_{number // 2 + 1}"))
        write(root / annotations, entries)


def tokenizer(special, before, after, pad, texts, size=320):
    """A byte-level BPE trained on the fixture's texts, with special tokens around a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE(unk_token=None))
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    plain.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    plain.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=size, special_tokens=special, initial_alphabet=alphabet))
    around = [token for token in (before, after) if token]
    plain.post_processor = processors.TemplateProcessing(
        single=" ".join(filter(None, [before, "$A", after])), special_tokens=[(t, plain.token_to_id(t)) for t in around]
    )
    return PreTrainedTokenizerFast(tokenizer_object=plain, pad_token=pad, eos_token=after or special[-1], unk_token=special[0])


def checkpoints(root, output, seed):
    import torch
    import transformers as t

    texts = [entry["caption"].lower() for entry in json.loads((root / "conceptual_caption/annotations/cc3m.json").read_text())]
    texts += ["question: {} short answer:", "a short image caption."]
    bert = tokenizer(["[UNK]", "[PAD]", "[CLS]", "[SEP]"], "[CLS]", "[SEP]", "[PAD]", texts)
    seq2seq = tokenizer(["<unk>", "<pad>", "</s>"], None, "</s>", "<pad>", texts)
    causal = tokenizer(["<unk>", "<pad>", "<s>", "</s>"], "<s>", None, "<pad>", texts)
    causal.eos_token, causal.bos_token, causal.padding_side = "</s>", "<s>", "left"

    vision = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, patch_size=14, image_size=28)
    qformer = dict(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=40, encoder_hidden_size=32,
        cross_attention_frequency=2, vocab_size=len(bert), max_position_embeddings=128, pad_token_id=bert.pad_token_id,
    )
    languages = {
        "instructblip-flan-t5": (seq2seq, t.T5Config(
            vocab_size=len(seq2seq) + 8, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_decoder_layers=2, num_heads=2,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=seq2seq.pad_token_id,
            pad_token_id=seq2seq.pad_token_id, eos_token_id=seq2seq.eos_token_id,
        )),
        "instructblip-vicuna": (causal, t.LlamaConfig(
            vocab_size=len(causal) + 8, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
            bos_token_id=causal.bos_token_id, eos_token_id=causal.eos_token_id, pad_token_id=causal.pad_token_id,
        )),
    }

    def save(model, processor, folder):
        torch.manual_seed(seed)
        with torch.no_grad():
            # Scales that keep activations near 1, so that every part of the model has a say in what comes out.
            for name, value in model.named_parameters():
                if value.dim() > 1:
                    spread = 0.5 if "embed" in name or "shared" in name or "query_tokens" in name else value[0].numel() ** -0.5
                    value.copy_(torch.randn_like(value) * spread)
                else:
                    value.add_(torch.randn_like(value) * 0.1)
        model.save_pretrained(output / folder)
        processor.save_pretrained(output / folder)

    def images(size):
        return t.BlipImageProcessor(size=dict(height=size, width=size))

    for folder, (words, text) in languages.items():
        words.add_special_tokens({"additional_special_tokens": ["<image>"]})
        config = t.InstructBlipConfig(
            vision_config=vision, qformer_config=qformer, text_config=text.to_dict(), num_query_tokens=4,
            image_token_index=words.convert_tokens_to_ids("<image>"),
        )
        processor = t.InstructBlipProcessor(images(28), words, bert, num_query_tokens=4)
        save(t.InstructBlipForConditionalGeneration(config).eval(), processor, folder)
    config = t.Blip2Config(
        vision_config=dict(vision, image_size=56), qformer_config=dict(qformer, use_qformer_text_input=True),
        text_config=dict(model_type="opt", vocab_size=8, hidden_size=8, ffn_dim=8, num_hidden_layers=1, num_attention_heads=1),
        num_query_tokens=4, image_text_hidden_size=16,
    )
    save(t.Blip2ForImageTextRetrieval(config).eval(), t.Blip2Processor(images(56), bert, num_query_tokens=4), "blip2-itm")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("output", type=Path)
    arguments.add_argument("--data-only", action="store_true", help="no checkpoints")
    arguments.add_argument("--images", type=int, default=6, help="images per benchmark and corpus")
    arguments.add_argument("--size", type=int, default=64, help="longest edge of an image in pixels")
    arguments.add_argument("--seed", type=int, default=7)
    options = arguments.parse_args()
    root = options.output if options.data_only else options.output / "data"
    data(root, options.images, options.seed, options.size)
    if not options.data_only:
        checkpoints(root, options.output, options.seed)
        output = options.output.resolve()
        settings = [
            f"data.root={output / 'data'}", f"model.checkpoint={output / 'instructblip-flan-t5'}",
            f"evaluate.retrieval.checkpoint={output / 'blip2-itm'}", "restore.steps=2", "restore.batch=4", "replicate.seed=0",
        ]
        print("ressa sweep experiments/paper/restoration.yaml", shlex.join(settings))


if __name__ == "__main__":
    main()
