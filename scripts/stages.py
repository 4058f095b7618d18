"""Stages of published size, executed one at a time by a worker of ours: folders of zeros, benchmarks of one picture, and the counts of the
CUDA stand-in. Used by simulate.py and device_check.py."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
PROGRAMS = TARGET / "release"
PICTURE = ROOT / "crates/data/tests/published/vg/images/VG_100K/1.jpg"


@dataclass(frozen=True)
class Model:
    """A published checkpoint: the shape's name, its blocks (image encoder, language model), two smaller models from which it is reached by
    adding the difference between them, and the experiments about it."""

    name: str
    blocks: tuple[int, int]
    measured: tuple[tuple[int, int], tuple[int, int]]
    experiments: tuple[str, ...]

    def steps_to_published(self):
        """How often the difference is added."""
        (vision, language), (more_vision, more_language) = self.measured
        steps = (self.blocks[0] - vision) // (more_vision - vision)
        assert self.blocks == (vision + steps * (more_vision - vision), language + steps * (more_language - language))
        return steps


MODELS = {
    "flan-t5-xl": Model(
        "instructblip-flan-t5-xl", (39, 24), ((6, 2), (9, 4)),
        ("restoration", "methods", "methods-official", "allocation", "towers", "ablations"),
    ),
    "vicuna-7b": Model("instructblip-vicuna-7b", (39, 32), ((3, 8), (6, 10)), ("restoration-vicuna", "allocation-vicuna")),
}
MATCHER = "blip2-itm-vit-g-coco"
# Items of the published benchmarks, and how many questions an image of each has.
ITEMS = {"vqav2": 214354, "gqa": 12578, "okvqa": 5046, "nocaps": 4500, "flickr30k": 1000}
QUESTIONS = {"vqav2": 5, "gqa": 31, "okvqa": 1}


class Failed(Exception):
    """A stage or a program did not do what it was asked."""


def run(command, **options):
    if not shutil.which(command[0]):
        raise Failed(f"`{command[0]}` is not built: `make simulate` and `make device-check` do it")
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    if done.returncode != 0:
        raise Failed(f"{command[0]}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        path.symlink_to(PICTURE)


def benchmarks(root, images):
    """Every benchmark and corpus of the paper, in its published format, with `images` images that are all the same picture."""
    draw = random.Random(1)
    vocabulary = ["red", "box", "near", "the", "table", "two", "people"]
    words = lambda least, most: " ".join(draw.choices(vocabulary, k=draw.randint(least, most)))
    question = lambda: f"what is {words(2, 12)}?"
    caption = lambda: f"A {words(7, 13)}."
    coco = [f"val2014/COCO_val2014_{number:012d}.jpg" for number in range(1, images + 1)]
    for name in coco:
        picture(root / "coco/images" / name)
    for task, annotations in [("vqav2", "v2_mscoco_val2014_annotations.json"), ("okvqa", "mscoco_val2014_annotations.json")]:
        asked, truth = [], []
        for identity in range(images * QUESTIONS[task]):
            image = identity // QUESTIONS[task]
            asked.append(dict(image=coco[image], question=question(), question_id=identity, dataset="vqa"))
            answers = [dict(answer="red", answer_confidence="yes", answer_id=number) for number in range(1, 11)]
            truth.append(dict(question_id=identity, image_id=image + 1, question_type="what", answer_type="other", answers=answers))
        write(root / task / "annotations/vqa_val_eval.json", asked)
        write(root / task / "annotations" / annotations, dict(info={}, data_subtype="val2014", annotations=truth))

    asked = []
    for number in range(images * QUESTIONS["gqa"]):
        name = f"n{number // QUESTIONS['gqa']:06d}.jpg"
        picture(root / "gqa/images" / name)
        asked.append(dict(image=name, question=question(), answer="red", question_id=f"{number:08d}"))
    write(root / "gqa/annotations/testdev_balanced_questions.json", asked)

    listed, described, references = [], [], []
    for number in range(images):
        name = f"{number:016x}.jpg"
        picture(root / "nocaps/images/val" / name)
        listed.append(dict(image=f"val/{name}", img_id=number))
        described.append(dict(id=number, file_name=name, domain="in-domain", width=64, height=64))
        references += [dict(image_id=number, id=10 * number + i, caption=caption()) for i in range(10)]
    write(root / "nocaps/annotations/nocaps_val.json", listed)
    write(root / "nocaps/annotations/nocaps_val_4500_captions.json", dict(licenses=[], info={}, images=described, annotations=references))

    pairs = []
    for number in range(images):
        picture(root / f"flickr30k/images/flickr30k-images/{number}.jpg")
        pairs.append(dict(image=f"flickr30k-images/{number}.jpg", caption=[caption() for _ in range(5)]))
    write(root / "flickr30k/annotations/test.json", pairs)

    for annotations, folder, name in [
        ("coco/annotations/coco_karpathy_train.json", "coco/images", "train2014/COCO_train2014_{:012d}.jpg"),
        ("vg/annotations/vg_caption.json", "vg/images/VG_100K", "{}.jpg"),
        ("conceptual_caption/annotations/cc3m.json", "conceptual_caption/images", "{}.jpg"),
    ]:
        entries = []
        for number in range(images):
            image = name.format(number + 1)
            picture(root / folder / image)
            entries.append(dict(image=image, caption=caption(), image_id=f"train_{number + 1}"))
        write(root / annotations, entries)


def hollow(name, folder, blocks):
    """A folder of a published shape whose weights are zeros that take no room on the disk."""
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        run([PROGRAMS / "examples/hollow_checkpoint", name, folder, *blocks])
    return folder


def filled(hollow, folder):
    """The same folder with random weights."""
    if not folder.exists():
        job = {"job": "random-checkpoint", "like": str(hollow), "output": str(folder), "seed": 1, "dtype": "bfloat16"}
        answers = run([PROGRAMS / "ressa-worker", "job", "--device", "cpu"], input=json.dumps(job)).splitlines()
        if json.loads(answers[-1])["reply"] != "done":
            raise Failed(answers[-1])
    return folder


def stages_of(experiment, *settings):
    """The distinct stages of an experiment of experiments/paper."""
    lines = run([PROGRAMS / "examples/stages", ROOT / "experiments", ROOT / f"experiments/paper/{experiment}.yaml", *settings])
    return [json.loads(line) for line in lines.splitlines()]


def node(stage, **inputs):
    """A stage as a worker is asked for it. Its key tells it from other stages of the same store."""
    body = {"stage": stage, "inputs": {name: value for name, value in inputs.items() if value}}
    return {"key": hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest(), **body}


@dataclass
class Worker:
    """How workers are started: where they publish, on which device, with which libraries and variables."""

    store: Path
    device: str = "cpu"
    environment: dict = field(default_factory=dict)
    shipped: tuple = ()

    def command(self):
        shipped = [part for folder in self.shipped for part in ("--shipped", str(folder))]
        threads = str(os.cpu_count() or 1)
        return [str(PROGRAMS / "ressa-worker"), "serve", "--device", self.device, "--threads", threads, "--store", str(self.store), *shipped]

    def execute(self, asked, may_fail=""):
        """Executes one stage in a process of its own; gives the seconds that it took. A failure whose message has `may_fail` in it is none."""
        with subprocess.Popen(
            self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            env={**os.environ, **self.environment},
        ) as process:
            text, errors = process.communicate(json.dumps({"request": "execute", "node": asked}) + "\n")
        for line in map(json.loads, text.splitlines()):
            if line["event"] == "done":
                return line["seconds"]
            if line["event"] == "failed":
                message = line["failure"]["message"].split("\nException raised from")[0]
                if may_fail and may_fail in message:
                    return 0.0
                raise Failed(f"{asked['stage']['stage']}: {message[:600]}")
        raise Failed(f"{asked['stage']['stage']}: the worker ended: {errors.strip()[-600:]}")


def stand_in(report, cards=ROOT / "experiments/devices.yaml", shapes=True):
    """Variables that give a process the stand-in's device."""
    library = run([ROOT / "scripts/stand-in/build.sh"]).strip()
    others = os.environ.get("LD_LIBRARY_PATH")
    environment = {"LD_LIBRARY_PATH": f"{library}:{others}" if others else library, "STAND_IN_REPORT": str(report), "STAND_IN_CARDS": str(cards)}
    return {**environment, "STAND_IN_SHAPES": "1"} if shapes else environment


@dataclass
class Counts:
    """What a stage did to its device. Sums and differences make figures of a step, an item or a block."""

    launches: float = 0
    syncs: float = 0
    up: float = 0
    down: float = 0
    tflop: float = 0
    peak: float = 0
    seconds: dict = field(default_factory=dict)

    @classmethod
    def read(cls, path):
        report = json.loads(path.read_text().splitlines()[-1])
        if report["violations"]:
            raise Failed(f"tensors on different devices: {report['refused']}")
        seconds = {card: clock["seconds"] for card, clock in report["cards"].items()}
        return cls(
            report["launches"], report["syncs"], report["up_bytes"], report["down_bytes"], report["tflop"], report["peak_bytes"][0], seconds
        )

    def combine(self, other, factor):
        """`self + factor * other`, member by member."""
        names = ("launches", "syncs", "up", "down", "tflop", "peak")
        sums = [getattr(self, name) + factor * getattr(other, name) for name in names]
        cards = {card: self.seconds.get(card, 0) + factor * other.seconds.get(card, 0) for card in {**self.seconds, **other.seconds}}
        return Counts(*sums, cards)


def cards():
    """The cards of experiments/devices.yaml by their ids."""
    found, block = {}, None
    for line in (ROOT / "experiments/devices.yaml").read_text().splitlines():
        line = line.split("#")[0].rstrip()
        key, _, value = line.strip().partition(":")
        if line and not line.startswith(" "):
            block = found.setdefault(key, {})
        elif line:
            block[key] = value.strip()
    return found


def clear(folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def log(text):
    print(text, file=sys.stderr, flush=True)
