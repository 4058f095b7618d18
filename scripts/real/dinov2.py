"""DINOv2 ViT-S/14 from its ONNX graph, as the image encoder of the BLIP-2 family (`Blip2VisionModel`).

The two networks compute the same: LayerScale is folded into the linear before it, queries, keys and values are stacked, the keys' bias is left
out (it adds the same number to every logit of a query), and the 37 x 37 positions are resized to 16 x 16 as the graph resizes them.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

BLOCKS, WIDTH, HEADS, INNER, PATCH, SIDE, STORED_SIDE = 12, 384, 6, 1536, 14, 16, 37
# ImageNet's, which DINOv2 was trained with.
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def config() -> dict:
    """`vision_config` as transformers writes it."""
    return {
        "attention_dropout": 0.0,
        "dtype": "float32",
        "hidden_act": "gelu",
        "hidden_size": WIDTH,
        "image_size": SIDE * PATCH,
        "initializer_range": 1e-10,
        "intermediate_size": INNER,
        "layer_norm_eps": 1e-06,
        "model_type": "instructblip_vision_model",
        "num_attention_heads": HEADS,
        "num_hidden_layers": BLOCKS,
        "patch_size": PATCH,
        "qkv_bias": True,
    }


def preprocessor(processor: str) -> dict:
    """preprocessor_config.json: squares of 224 pixels, bicubic, ImageNet's mean and deviation."""
    return {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": MEAN,
        "image_processor_type": "BlipImageProcessor",
        "image_std": STD,
        "processor_class": processor,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"height": SIDE * PATCH, "width": SIDE * PATCH},
    }


def resizing(to: int, of: int) -> np.ndarray:
    """Weights `[to, of]` of cubic convolution (a = -0.75) at half-pixel places, without smoothing; beyond the edge is the edge."""
    a = -0.75
    weights = np.zeros((to, of))
    for row in range(to):
        place = (row + 0.5) * of / to - 0.5
        first = int(np.floor(place))
        for at in range(first - 1, first + 3):
            x = abs(place - at)
            if x <= 1:
                weight = (a + 2) * x**3 - (a + 3) * x**2 + 1
            else:
                weight = a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a
            weights[row, min(max(at, 0), of - 1)] += weight
    return weights


def tensors(path: Path) -> dict[str, np.ndarray]:
    """The encoder's tensors under the names of `Blip2VisionModel`, f32."""
    graph = onnx.load(str(path)).graph
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # Matrices have no name of their own: they are found by the bias that is added next.
    made_by = {output: node for node in graph.node for output in node.output}
    matrices = {}
    for node in graph.node:
        if node.op_type != "Add":
            continue
        for bias, product in (node.input, reversed(node.input)):
            if bias.startswith("backbone.encoder") and bias.endswith(".bias") and bias in stored:
                source = made_by.get(product)
                if source is not None and source.op_type == "MatMul":
                    found = [stored[name] for name in source.input if name in stored]
                    if found:
                        matrices[bias.removesuffix(".bias")] = found[0].T

    def f32(array: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(array, dtype=np.float32)

    def only(shape: tuple, start: str = "") -> np.ndarray:
        found = [name for name, tensor in stored.items() if tensor.shape == shape and name.startswith(start)]
        if len(found) != 1:
            raise ValueError(f"{path} has {len(found)} tensors of shape {shape}, expected one; is it the package's file?")
        return stored[found[0]]

    grid = only((1, STORED_SIDE**2, WIDTH)).reshape(STORED_SIDE, STORED_SIDE, WIDTH).astype(np.float64)
    resize = resizing(SIDE, STORED_SIDE)
    patches = np.einsum("ia,jb,abc->ijc", resize, resize, grid).reshape(1, SIDE * SIDE, WIDTH)
    # The position of the class token; `cls_token` itself has its own name.
    first = only((1, 1, WIDTH), "onnx")
    embeddings = "backbone.embeddings."
    found = {
        "embeddings.class_embedding": f32(stored[embeddings + "cls_token"]),
        "embeddings.position_embedding": f32(np.concatenate([first, patches], 1)),
        "embeddings.patch_embedding.weight": f32(stored[embeddings + "patch_embeddings.projection.weight"]),
        "embeddings.patch_embedding.bias": f32(stored[embeddings + "patch_embeddings.projection.bias"]),
        "post_layernorm.weight": f32(stored["backbone.layernorm.weight"]),
        "post_layernorm.bias": f32(stored["backbone.layernorm.bias"]),
    }
    for block in range(BLOCKS):
        of, to = f"backbone.encoder.layer.{block}.", f"encoder.layers.{block}."
        inner, dense = of + "attention.attention.", of + "attention.output.dense"
        for theirs, ours in (("norm1", "layer_norm1"), ("norm2", "layer_norm2")):
            for leaf in ("weight", "bias"):
                found[f"{to}{ours}.{leaf}"] = f32(stored[f"{of}{theirs}.{leaf}"])
        queries, values = stored[inner + "query.bias"], stored[inner + "value.bias"]
        found[to + "self_attn.qkv.weight"] = f32(np.concatenate([matrices[inner + part] for part in ("query", "key", "value")]))
        found[to + "self_attn.qkv.bias"] = f32(np.concatenate([queries, np.zeros_like(queries), values]))
        for name, source, scale in (
            ("self_attn.projection", dense, stored[of + "layer_scale1.lambda1"]),
            ("mlp.fc2", of + "mlp.fc2", stored[of + "layer_scale2.lambda1"]),
        ):
            found[f"{to}{name}.weight"] = f32(matrices[source] * scale[:, None])
            found[f"{to}{name}.bias"] = f32(stored[source + ".bias"] * scale)
        found[to + "mlp.fc1.weight"] = f32(matrices[of + "mlp.fc1"])
        found[to + "mlp.fc1.bias"] = f32(stored[of + "mlp.fc1.bias"])
    return found
