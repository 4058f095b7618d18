#!/usr/bin/env python3
"""A linear probe on the image encoder's features: what easy-VQA's test score would be if shape and colour were read linearly off them.

    .real/venv/bin/python -m pip install onnxruntime==1.32.0 pillow==13.0.0
    nice .real/venv/bin/python scripts/real/probe.py [--images N] [--threads N]

Ridge regression from the class token and the mean of the patches to shape and colour, fitted on training images whose attributes their questions tell;
the questions of the test set are then answered by rule (what is asked, and whether it is negated), so only what the features hold can be wrong.
The gate of the trained connector is 90 % of the larger of this and of the best published model's 99.5 % (a convolutional network with a bag of words,
trained by the data set's author on twice the images).
"""

import argparse
import collections
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import dinov2  # noqa: E402

SHAPES = ("circle", "rectangle", "triangle")
COLORS = ("red", "green", "blue", "black", "gray", "teal", "brown", "yellow")
RIDGES = (1e-2, 1e-1, 1.0, 10.0, 100.0)
REPOSITORY = Path(__file__).resolve().parents[2]


def questions(folder: Path) -> list:
    return json.loads((folder / "questions.json").read_text())


def attributes(rows: list) -> dict:
    """Shape and colour of each image, where its questions tell both: open ones by their answer, closed ones by a yes."""
    found = collections.defaultdict(dict)
    for question, answer, image in rows:
        words = question.strip("?").split()
        negated = "not" in words or "no" in words
        said = [answer] if answer not in ("yes", "no") else [w for w in words if (answer == "no") == negated]
        for word in said:
            for kind, known in (("shape", SHAPES), ("color", COLORS)):
                if word in known:
                    found[image][kind] = word
    return {image: kinds for image, kinds in found.items() if len(kinds) == 2}


def answer(question: str, shape: str, color: str) -> str:
    words = question.strip("?").split()
    if words[0] == "what":
        return color if "color" in words else shape
    there = shape in words or color in words
    negated = "not" in words or "no" in words
    return "yes" if there != negated else "no"


def features(folder: Path, images: list, model: Path, threads: int) -> np.ndarray:
    """Class token and mean of the patches `[images, 2 * width]`."""
    import onnx
    import onnxruntime
    from PIL import Image

    graph = onnx.load(str(model))
    last = [n for n in graph.graph.node if n.op_type == "Add" and "backbone.layernorm.bias" in n.input][0].output[0]
    graph.graph.output.append(onnx.helper.make_tensor_value_info(last, onnx.TensorProto.FLOAT, None))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    side = dinov2.SIDE * dinov2.PATCH
    found = []
    for at in range(0, len(images), 16):
        pixels = []
        for image in images[at : at + 16]:
            opened = Image.open(folder / "images" / f"{image}.png").convert("RGB").resize((side, side), Image.BICUBIC)
            values = np.asarray(opened, np.float32) / 255
            pixels.append(((values - np.float32(dinov2.MEAN)) / np.float32(dinov2.STD)).transpose(2, 0, 1))
        states = session.run([last], {session.get_inputs()[0].name: np.stack(pixels)})[0]
        found.append(np.concatenate([states[:, 0], states[:, 1:].mean(1)], 1))
        print(f"\r{at + len(pixels)} of {len(images)} images", end="", file=sys.stderr)
    print(file=sys.stderr)
    return np.concatenate(found)


def fit(x: np.ndarray, labels: list, classes: tuple) -> np.ndarray:
    """Ridge regression to one-hot labels; the strength that is best on the last fifth."""
    y = np.eye(len(classes))[[classes.index(label) for label in labels]]
    cut = len(x) * 4 // 5

    def solve(x: np.ndarray, y: np.ndarray, ridge: float) -> np.ndarray:
        return np.linalg.solve(x.T @ x + ridge * len(x) * np.eye(x.shape[1]) / x.shape[1], x.T @ y)

    def right(ridge: float) -> float:
        return float(np.mean((x[cut:] @ solve(x[:cut], y[:cut], ridge)).argmax(1) == y[cut:].argmax(1)))

    return solve(x, y, max(RIDGES, key=right))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=REPOSITORY / ".real")
    parser.add_argument("--images", type=int, default=4000, help="training images (default: all)")
    parser.add_argument("--tests", type=int, default=1000, help="test images, the first so many (default: all)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    data, model = options.real / "data/easy-vqa", options.real / "unpacked/vit_s_focus.onnx"
    known = attributes(questions(data / "train"))
    images = sorted(known)[: options.images]
    tests = questions(data / "test")
    asked = sorted({image for _, _, image in tests})[: options.tests]
    tests = [row for row in tests if row[2] in set(asked)]
    train = features(data / "train", images, model, options.threads)
    mean, spread = train.mean(0), train.std(0) + 1e-6

    def scaled(x: np.ndarray) -> np.ndarray:
        return np.concatenate([(x - mean) / spread, np.ones((len(x), 1))], 1).astype(np.float64)

    seen = scaled(features(data / "test", asked, model, options.threads))
    read = {}
    for kind, classes in (("shape", SHAPES), ("color", COLORS)):
        weights = fit(scaled(train), [known[image][kind] for image in images], classes)
        read[kind] = [classes[at] for at in (seen @ weights).argmax(1)]
    said = {image: (read["shape"][at], read["color"][at]) for at, image in enumerate(asked)}
    right = [answer(question, *said[image]) == truth for question, truth, image in tests]
    print(f"linear probe: {100 * np.mean(right):.2f} % of {len(right)} test questions ({len(images)} training images)")


if __name__ == "__main__":
    main()
