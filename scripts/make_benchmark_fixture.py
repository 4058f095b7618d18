#!/usr/bin/env python3
"""Writes TextVQA, VizWiz, POPE, ScienceQA, MMBench and MME in miniature, in the forms of their authors, beside what make_paper_fixture.py
writes: into the root folder of benchmarks that is given.

    python3 scripts/make_benchmark_fixture.py crates/data/tests/published

Needs pillow. Everything is made up; POPE asks about the images of COCO that are there.
"""

import argparse
import base64
import csv
import io
import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

COLORS = ["red", "green", "blue", "yellow", "white", "black"]
SUBTASKS = [
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR", "commonsense_reasoning",
    "numerical_calculation", "text_translation", "code_reasoning",
]


def drawn(draw):
    image = Image.new("RGB", (draw.randrange(20, 30), draw.randrange(20, 30)), draw.choice(COLORS))
    ImageDraw.Draw(image).rectangle([4, 4, 14, 12], fill=draw.choice(COLORS))
    return image


def save(path, draw):
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn(draw).save(path, **({"quality": 50} if path.suffix == ".jpg" else {}))


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def listed(value):
    return json.dumps(value).replace("}, {", "},\n {") + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    root, draw = parser.parse_args().root, random.Random(11)

    data = []
    for number in range(4):
        image = f"{number // 2:016x}"
        save(root / f"textvqa/images/train_images/{image}.jpg", draw)
        data.append(dict(
            question=f"what does Sign {number} say?", image_id=image, image_classes=["Sign"], question_id=34602 + number, set_name="val",
            answers=[draw.choice(["stop", "Stop", "exit"]) for _ in range(10)],
        ))
    write(root / "textvqa/annotations/TextVQA_0.5.1_val.json", json.dumps(dict(dataset_type="val", dataset_name="textvqa", dataset_version="0.5.1", data=data)) + "\n")

    data = []
    for number in range(4):
        name = f"VizWiz_val_{number:08d}.jpg"
        save(root / "vizwiz/images/val" / name, draw)
        known = number != 2
        said = [dict(answer=draw.choice(["a can", "can"]) if known else "unanswerable", answer_confidence=draw.choice(["yes", "maybe"])) for _ in range(10)]
        data.append(dict(image=name, question="what IS this?", answers=said, answer_type="other" if known else "unanswerable", answerable=int(known)))
    write(root / "vizwiz/annotations/val.json", listed(data))

    images = sorted(path.name for path in (root / "coco/images/val2014").glob("*.jpg"))
    for split in ["random", "popular", "adversarial"]:
        lines = []
        for number in range(4):
            image = images[number // 2 % len(images)]
            thing = draw.choice(["dog", "car", "person"])
            lines.append(json.dumps(dict(question_id=number + 1, image=image, text=f"Is there a {thing} in the image?", label=["yes", "no"][number % 2])))
        write(root / f"pope/annotations/coco_pope_{split}.json", "\n".join(lines) + "\n")

    problems, ids = {}, []
    for number in range(6):
        pid, image = str(number + 1), number % 3 != 2
        split = "train" if number == 0 else "test"
        if image:
            save(root / f"scienceqa/images/{split}/{pid}/image.png", draw)
        problems[pid] = dict(
            question=f"Which of these is colder, {number}?", choices=["ice", "fire", "a warm bath"][:2 + number % 2], answer=number % 2,
            hint="" if number % 2 else "Heat flows from warm to cold.", image="image.png" if image else None, task="closed choice",
            grade=f"grade{2 * number + 1}", subject=["natural science", "social science", "language science"][number % 3], topic="physics", category="Heat",
            skill="Compare", lecture="", solution="", split=split,
        )
        if split == "test":
            ids.append(pid)
    write(root / "scienceqa/annotations/problems.json", json.dumps(problems).replace('}, "', '},\n "') + "\n")
    write(root / "scienceqa/annotations/pid_splits.json", json.dumps(dict(train=["1"], val=[], test=ids[::-1])) + "\n")

    table = io.StringIO()
    columns = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category", "comment", "split"]
    rows = csv.DictWriter(table, columns, delimiter="\t", lineterminator="\n")
    rows.writeheader()
    for number, options in enumerate([["cat", "dog"], ["one", "two", "three"], ["left", "right", "top", 'bottom, or "below"']]):
        image = io.BytesIO()
        drawn(draw).save(image, "PNG")
        text, index, right = base64.b64encode(image.getvalue()).decode(), 241 + number, number % len(options)
        # The second question has no rotations here; of the third, images are named by the question's index.
        for turn in range(1 if number == 1 else len(options)):
            turned = options[turn:] + options[:turn]
            rows.writerow(dict(
                index=index + 1_000_000 * turn, question=f"What is\nshown, {number}?", hint="Look closely." if number else "", answer="ABCD"[(right - turn) % len(options)],
                category="image_topic", image=text if turn == 0 or number == 0 else str(index), source="made up", split="dev",
                **{"l2-category": "coarse_perception" if number else "finegrained_perception (instance-level)"}, **dict(zip("ABCD", turned)),
            ))
    write(root / "mmbench/annotations/MMBench_DEV_EN.tsv", table.getvalue())

    for place, subtask in enumerate(SUBTASKS):
        folder = root / "mme" / subtask
        # Some subtasks have folders for images and questions, the others have both side by side.
        images, questions = (folder / "images", folder / "questions_answers_YN") if place % 2 else (folder, folder)
        for number in range(1 if place > 2 else 2):
            save(images / f"{number:04d}.{'png' if place % 3 else 'jpg'}", draw)
            lines = [f"Is there {what} in this image? Please answer yes or no.\t{right}" for what, right in [("a box", "Yes"), ("no box", "No")]]
            write(questions / f"{number:04d}.txt", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
