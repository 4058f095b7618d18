"""SmolLM2-135M-Instruct from its GGUF file: a `LlamaForCausalLM` with tied head, and its tokenizer.

Weights of 4 bits become the f32 values that they stand for, so nothing is rounded twice: 16 values per 32 weights of a row.
"""

from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

# Of the 17 special tokens that no text has, the one that stands for an image position; it takes the name that transformers' InstructBLIP processor looks for.
UNUSED_TOKEN, IMAGE_TOKEN = "<empty_output>", "<image>"
BLOCKS, WIDTH, HEADS, KEY_VALUE_HEADS, INNER, WORDS = 30, 576, 9, 3, 1536, 49152


def config() -> dict:
    """`text_config` as transformers writes it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "dtype": "float32",
        "eos_token_id": 2,
        "head_dim": WIDTH // HEADS,
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "initializer_range": 0.041666666666666664,
        "intermediate_size": INNER,
        "max_position_embeddings": 8192,
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": HEADS,
        "num_hidden_layers": BLOCKS,
        "num_key_value_heads": KEY_VALUE_HEADS,
        "pad_token_id": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 100000.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "vocab_size": WORDS,
    }


def rotated(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries and keys in the order of transformers; llama.cpp interleaves the two halves of each head."""
    outputs, inputs = weight.shape
    return weight.reshape(heads, outputs // heads // 2, 2, inputs).swapaxes(1, 2).reshape(outputs, inputs)


def tensors(reader: GGUFReader) -> dict[str, np.ndarray]:
    """The language model's tensors under the names of `LlamaForCausalLM`, f32. The head is tied, so it is not among them."""
    stored = {t.name: t for t in reader.tensors}

    def get(name: str) -> np.ndarray:
        return np.ascontiguousarray(dequantize(stored[name].data, stored[name].tensor_type), dtype=np.float32)

    found = {"model.embed_tokens.weight": get("token_embd.weight"), "model.norm.weight": get("output_norm.weight")}
    linears = {
        "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    for block in range(BLOCKS):
        to, of = f"model.layers.{block}.", f"blk.{block}."
        found[to + "input_layernorm.weight"] = get(of + "attn_norm.weight")
        found[to + "post_attention_layernorm.weight"] = get(of + "ffn_norm.weight")
        found[to + "self_attn.q_proj.weight"] = rotated(get(of + "attn_q.weight"), HEADS)
        found[to + "self_attn.k_proj.weight"] = rotated(get(of + "attn_k.weight"), KEY_VALUE_HEADS)
        for ours, theirs in linears.items():
            found[f"{to}{ours}.weight"] = get(f"{of}{theirs}.weight")
    if found["model.embed_tokens.weight"].shape != (WORDS, WIDTH):
        raise ValueError("the GGUF file is not SmolLM2-135M")
    return found


def texts(reader: GGUFReader, field: str) -> list[str]:
    entry = reader.fields[field]
    return [bytes(entry.parts[part]).decode() for part in entry.data]


def tokenizer(reader: GGUFReader) -> dict[str, dict]:
    """tokenizer.json and what stands beside it, by file name.

    Byte-level BPE, digits one by one. Differs from the published tokenizer in the name of the image token, and in that every text begins with a blank, so that an answer is
    the same word as within a sentence, as with the tokenizers of T5 and LLaMA.
    """
    words = texts(reader, "tokenizer.ggml.tokens")
    words[image_token(reader)] = IMAGE_TOKEN
    kinds = reader.fields["tokenizer.ggml.token_type"]
    special = [number for number, part in enumerate(kinds.data) if int(kinds.parts[part][0]) == 3]
    added = {
        number: {
            "content": words[number], "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True,
        }
        for number in special
    }  # fmt: skip
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
        "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
        "vocab": {word: number for number, word in enumerate(words)},
        "merges": [merge.split(" ") for merge in texts(reader, "tokenizer.ggml.merges")],
    }  # fmt: skip
    named = {"bos_token": words[1], "eos_token": words[2], "pad_token": words[2], "unk_token": words[0]}
    return {
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None,
            "added_tokens": [{"id": number, **token} for number, token in added.items()],
            "normalizer": {"type": "Prepend", "prepend": " "},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
            "post_processor": byte_level, "decoder": byte_level, "model": model,
        },
        "tokenizer_config.json": {
            "added_tokens_decoder": {str(number): token for number, token in added.items()},
            **named,
            "chat_template": bytes(reader.fields["tokenizer.chat_template"].parts[-1]).decode(),
            "clean_up_tokenization_spaces": False,
            "model_max_length": 8192,
            "padding_side": "left",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
        "special_tokens_map.json": named,
    }  # fmt: skip


def read(path: Path) -> GGUFReader:
    return GGUFReader(str(path))


def image_token(reader: GGUFReader) -> int:
    return texts(reader, "tokenizer.ggml.tokens").index(UNUSED_TOKEN)
