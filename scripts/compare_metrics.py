#!/usr/bin/env python3
"""Runs the originals of the metrics beside ours, on the same predictions, and says how far apart they are.

pycocoevalcap 1.2 (tokens, CIDEr, BLEU, ROUGE-L, METEOR; needs Java) and the answers of the VQA evaluation, written here from its
description because its code is no package. Needs `pip install pycocoevalcap==1.2` and a built `ressa`:

    python3 scripts/compare_metrics.py --ressa target/release/ressa [--predictions results/store/../predictions.jsonl]

Without --predictions, 400 captions are drawn from a grammar with odd punctuation. Exit code 1 where a difference is larger than rounding.
`--tokens FILE` prints each line of FILE, a tab and its words as the original counts them: so `crates/eval/tests/fixtures/ptb.tsv` was made.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile

WORDS = (
    "a the two man woman's dog dogs' cat it's don't isn't they're sitting riding on of in red-and-white black white surfboard wave 1950s 5:30 $5 mr. "
    "st. u.s. o'clock half-eaten t-shirt w/ b&w can't café TV's U.S. Main St. Ave. 'n' 1/2 24/7 #1 50% 12:00 p.m. etc. don’t man’s ½ — … “stop” ( ) "
    'umbrella street sign says "stop" next to , . ... ? ! - --'
).split()
NUMBERS = {w: str(n) for n, w in enumerate("zero one two three four five six seven eight nine ten".split())} | {"none": "0"}
MARKS = [";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!"]


def drawn():
    """Captions of 200 images, five references each, and answers of ten annotators."""
    draw = random.Random(1)
    sentence = lambda: " ".join(draw.choice(WORDS) for _ in range(draw.randint(3, 12)))
    captions = []
    for image in range(200):
        references = [sentence() for _ in range(5)]
        words = draw.choice(references).split() + sentence().split()[:2]
        draw.shuffle(words)
        captions.append({"kind": "caption", "id": str(image), "prompt": "", "prediction": " ".join(words), "references": references, "set": None})
    told = ["yes", "no", "2", "two", "a dog", "t-shirt", "T shirt.", "1,000", "the u.s.a", "none", "red/white", "dont", "10:30 am", "black & white"]
    answers = []
    for question in range(400):
        given = [draw.choice(told[:draw.randint(1, len(told))]) for _ in range(10)]
        answers.append({"kind": "answer", "id": str(question), "prompt": "", "prediction": draw.choice(told), "answers": given, "template": None})
    return captions, answers


def tokens(lines):
    """The words of each line, by pycocoevalcap's own tokenizer."""
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    found = PTBTokenizer().tokenize({at: [{"caption": line}] for at, line in enumerate(lines)})
    return [found[at][0] for at in range(len(lines))]


def captions_of_original(captions, java):
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    flat = tokens([c["prediction"] for c in captions] + [r for c in captions for r in c["references"]])
    said, rest = flat[: len(captions)], iter(flat[len(captions):])
    truth = {at: [next(rest) for _ in c["references"]] for at, c in enumerate(captions)}
    said = {at: [caption] for at, caption in enumerate(said)}
    scores = {"cider": Cider().compute_score(truth, said)[0], "rouge-l": Rouge().compute_score(truth, said)[0]}
    for n, value in enumerate(Bleu(4).compute_score(truth, said, verbose=0)[0], 1):
        scores[f"bleu-{n}"] = value
    if java:
        from pycocoevalcap.meteor.meteor import Meteor

        scores["meteor"] = Meteor().compute_score(truth, said)[0]
    return {name: 100 * value for name, value in scores.items()}


def normal(answer):
    answer = punctuation(answer.replace("\n", " ").replace("\t", " ").strip())
    words = [NUMBERS.get(word, word) for word in answer.lower().split()]
    return " ".join({"dont": "don't"}.get(word, word) for word in words if word not in ("a", "an", "the"))


def punctuation(text):
    out = text
    for mark in MARKS:
        deleted = mark + " " in text or " " + mark in text or re.search(r"\d,\d", text)
        out = out.replace(mark, "" if deleted else " ")
    return re.sub(r"\.(?!\d)", "", out, count=32)


def accuracy(answers):
    """LAVIS' `vqa_eval.py`: the mean over annotators of min(1, others who said it / 3), in per cent."""
    total = 0.0
    for item in answers:
        said, given = normal(item["prediction"]), item["answers"]
        if len(set(given)) > 1:
            given = [punctuation(answer) for answer in given]
        others = [sum(answer == said for answer in given[:at] + given[at + 1:]) for at in range(len(given))]
        total += sum(min(1.0, same / 3) for same in others) / len(given)
    return 100 * total / len(answers)


def ours(ressa, task, predictions, extra=()):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", delete=False) as file:
        file.writelines(json.dumps(item) + "\n" for item in predictions)
    run = [ressa, "--json", "score", file.name, "--task", task, *extra]
    answer = subprocess.run(run, check=True, capture_output=True, text=True).stdout
    os.unlink(file.name)
    scored = json.loads(answer)[0]["scores"]
    return {scored["score"]["metric"]: scored["score"]["value"]} | {name: part["value"] for name, part in scored["parts"].items()}


def main():
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--ressa", default="target/release/ressa")
    options.add_argument("--predictions", help="predictions.jsonl of captions")
    options.add_argument("--no-meteor", action="store_true")
    options.add_argument("--tokens", metavar="FILE")
    options = options.parse_args()
    if options.tokens:
        lines = [line.rstrip("\n") for line in open(options.tokens, encoding="utf-8")]
        # What the next line begins with must not matter.
        for line, words in zip(lines, tokens([text for line in lines for text in (line, "z")])[::2]):
            print(f"{line}\t{words}")
        return 0
    captions, answers = drawn()
    if options.predictions:
        captions = [json.loads(line) for line in open(options.predictions, encoding="utf-8")]
    theirs = captions_of_original(captions, not options.no_meteor)
    extra = []
    if not options.no_meteor:
        import pycocoevalcap.meteor.meteor as package

        extra = ["--meteor", os.path.join(os.path.dirname(os.path.abspath(package.__file__)), package.METEOR_JAR)]
    found = ours(options.ressa, "nocaps", captions, extra)
    theirs["accuracy"] = accuracy(answers)
    found |= ours(options.ressa, "vqav2", answers)
    worst = 0.0
    for name, value in sorted(theirs.items()):
        worst = max(worst, abs(value - found[name]))
        print(f"{name:<10} original {value:12.6f}   ours {found[name]:12.6f}   difference {abs(value - found[name]):.1e}")
    print(f"{len(captions)} captions, {len(answers)} answers; largest difference {worst:.1e}")
    return int(worst > 1e-6)


if __name__ == "__main__":
    sys.exit(main())
