#!/usr/bin/env python3
"""Writes the tokenizer goldens of crates/data: tiny tokenizers of four families with the files that hub folders have, and what
transformers' fast tokenizers make of them.

Usage: python3 scripts/export_tokenizer_goldens.py [OUTPUT]   (needs transformers 4.57; default crates/data/tests/goldens/tokenizers.json)

Each folder is a map from file names to JSON; `cases` hold ids with and without special tokens, the decoded text, and ids cut to eight.
"""

import copy
import json
import sys
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

ROOT = Path(__file__).resolve().parent.parent
CORPUS = ["what color is the square? a photo of two red circles, and don't it's the sky", "Question: how many are there? Short answer:"] * 4
TEXTS = ["What color is the square?", "  two   spaces ", "", "it's a photo, don't", "café the", "red</s>sky", "<image> the [SEP] <pad>", "how many\nred ones are there in the sky"]


def added(tokens, normalized=False):
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": normalized, "special": True}
    return {str(id): {"content": token, **flags} for id, token in tokens}


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(CORPUS, trainer)
    return json.loads(tokenizer.to_str())


def llama():
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return trained(tokenizer, trainers.BpeTrainer(vocab_size=60, special_tokens=["<unk>", "<s>", "</s>", "[PAD]"], show_progress=False))


def opt():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(set("".join(CORPUS)) - {" "}) + ["Ġ"]
    value = trained(tokenizer, trainers.BpeTrainer(vocab_size=70, special_tokens=["<s>", "<pad>", "</s>"], initial_alphabet=alphabet, show_progress=False))
    tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", pair="</s> $A $B", special_tokens=[("</s>", 2)])
    return json.loads(tokenizer.to_str())


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=True)
    value = trained(tokenizer, trainers.WordPieceTrainer(vocab_size=90, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False))
    tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    tokenizer.enable_truncation(5)
    return json.loads(tokenizer.to_str())


def t5():
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=["<pad>", "</s>", "<unk>", "<extra_id_0>"], unk_token="<unk>", show_progress=False)
    value = trained(tokenizer, trainer)
    tokenizer = Tokenizer.from_str(json.dumps(value))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_padding(pad_id=0, pad_token="<pad>", length=12)
    return json.loads(tokenizer.to_str())


def folders():
    l, o, b, t = llama(), opt(), bert(), t5()
    base = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "[PAD]", "model_max_length": 99}
    size = len(l["model"]["vocab"])
    yield "llama", {"tokenizer.json": l, "tokenizer_config.json": base | {"padding_side": "left", "truncation_side": "left"}}
    # Begins with the end token, and the image token is only listed, not in `tokenizer.json`.
    listed = added([(1, "<s>"), (2, "</s>"), (3, "[PAD]"), (size, "<image>")])
    yield "llama-image", {"tokenizer.json": l, "tokenizer_config.json": base | {"bos_token": "</s>", "add_eos_token": True, "added_tokens_decoder": listed}}
    yield "llama-no-bos", {"tokenizer.json": l, "tokenizer_config.json": base | {"add_bos_token": False, "model_max_length": 10**30}}
    # From before `added_tokens_decoder`: entries as objects, further tokens in a file of their own.
    old = {"pad_token": "[PAD]", "additional_special_tokens": ["<image>"], "bos_token": {"content": "</s>", "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}}
    config = {key: value for key, value in base.items() if key != "pad_token"}
    yield "llama-old", {"tokenizer.json": l, "tokenizer_config.json": config, "special_tokens_map.json": old, "added_tokens.json": {"<image>": size}}
    gpt = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "</s>", "eos_token": "</s>", "unk_token": "</s>", "pad_token": "<pad>", "errors": "replace"}
    yield "opt", {"tokenizer.json": o, "tokenizer_config.json": gpt | {"add_bos_token": True, "add_prefix_space": False}}
    yield "opt-prefix-space", {"tokenizer.json": o, "tokenizer_config.json": gpt | {"add_prefix_space": True, "padding_side": "left"}}
    yield "bert", {"tokenizer.json": b, "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 12, "clean_up_tokenization_spaces": True}}
    yield "bert-cased", {"tokenizer.json": b, "tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast", "do_lower_case": False, "strip_accents": True, "truncation_side": "left"}}
    yield "t5", {"tokenizer.json": t, "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer", "eos_token": "</s>", "unk_token": "<unk>", "extra_ids": 1, "additional_special_tokens": ["<extra_id_0>"]}}
    yield "plain", {"tokenizer.json": t, "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>"}}


def main():
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "crates/data/tests/goldens/tokenizers.json"
    result = []
    for name, files in folders():
        with tempfile.TemporaryDirectory() as folder:
            for file, value in files.items():
                (Path(folder) / file).write_text(json.dumps(value))
            tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True)
        cases = []
        for text in TEXTS:
            ids = tokenizer(text)["input_ids"]
            cases.append({
                "text": text, "ids": ids, "bare": tokenizer(text, add_special_tokens=False)["input_ids"],
                "decoded": tokenizer.decode(ids, skip_special_tokens=True), "raw": tokenizer.decode(ids, skip_special_tokens=False),
                "cut": tokenizer(text, truncation=True, max_length=8)["input_ids"],
            })
        limit = tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None
        result.append({
            "name": name, "files": copy.deepcopy(files), "pad": tokenizer.pad_token_id, "padding_side": tokenizer.padding_side,
            "max_length": limit, "cases": cases,
        })
    output.write_text(json.dumps(result, ensure_ascii=False, separators=(",", ":")).replace('},{"name"', '},\n{"name"') + "\n")


if __name__ == "__main__":
    main()
