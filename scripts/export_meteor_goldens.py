#!/usr/bin/env python3
"""Writes crates/eval/tests/fixtures/meteor.json: captions scored by METEOR's own program, with small tables in place of its own.

Needs Java and pycocoevalcap 1.2, whose jar is copied, with other tables in it, into a temporary folder:

    python3 scripts/export_meteor_goldens.py
"""

import gzip
import json
import os
import pathlib
import random
import subprocess
import tempfile
import zipfile

OUT = pathlib.Path(__file__).resolve().parent.parent / "crates/eval/tests/fixtures/meteor.json"
TABLES = {
    "function/english.words": "the\na\nof\non\nis\n's\n,\n.\nto\n",
    "nonbreaking/english.prefixes": "# words before a dot that belongs to them\nSt\nMr\nNo #NUMERIC_ONLY#\n",
    "synonym/english.exceptions": "child\nchildren\nride\nrode ridden\n",
    "synonym/english.synsets": "\n".join([
        "child", "1 7", "kid", "1", "couch", "2", "sofa", "2 8", "box", "3", "case", "3", "ride", "4", "drive", "4 5", "woman", "6", "lady", "6",
        "happy", "9", "glad", "9", "",
    ]),
    "synonym/english.relations": "1\n2\n",
}
PARAPHRASES = [
    ("a lot of", "many"), ("many", "a lot of"), ("next to", "beside"), ("next to", "close to"), ("a lot", "lots"), ("group of people", "crowd"),
    ("crowd", "many people"), ("is sitting", "sits"), ("of", "'s"),
]
WORDS = (
    "the a of on is , . to child children kid kids couch couches sofa box boxes case ride rode riding rides drive driving woman women lady ladies happy "
    "happier happiest glad many lots lot next beside close group people crowd sitting sits dog dogs dog's red-and-white No. 5 St. Mr. U.S. 12:30 1,000 \" ( ) … "
    "don't it's — ... ? half-eaten café"
).split()


def drawn(draw):
    """A caption, and references that are made of another one's words."""
    sentence = [draw.choice(WORDS) for _ in range(draw.randint(1, 12))]

    def changed():
        words = list(sentence)
        for _ in range(draw.randint(0, 4)):
            at = draw.randrange(len(words))
            change = draw.randrange(5)
            if change == 0 and len(words) > 1:
                del words[at]
            elif change == 1:
                words.insert(at, draw.choice(WORDS))
            elif change == 2:
                words[at] = draw.choice(WORDS)
            elif change == 3:
                words[at:at + 1] = draw.choice(draw.choice(PARAPHRASES)).split()
            else:
                draw.shuffle(words)
        return " ".join(words)

    return {"caption": changed(), "references": [changed() for _ in range(draw.randint(1, 4))]}


def main():
    import pycocoevalcap.meteor.meteor as package

    original = pathlib.Path(package.__file__).parent / package.METEOR_JAR
    draw = random.Random(5)
    cases = [drawn(draw) for _ in range(300)]
    with tempfile.TemporaryDirectory() as folder:
        with zipfile.ZipFile(original) as source, zipfile.ZipFile(os.path.join(folder, "small.jar"), "w") as jar:
            for entry in source.namelist():
                jar.writestr(entry, TABLES[entry] if entry in TABLES else source.read(entry))
        os.mkdir(os.path.join(folder, "data"))
        with gzip.open(os.path.join(folder, "data/paraphrase-en.gz"), "wt", encoding="utf-8") as table:
            table.writelines(f"0.5\n{one}\n{other}\n" for one, other in PARAPHRASES)
        command = ["java", "-Dfile.encoding=UTF-8", "-jar", "small.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
        program = subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")

        def say(line):
            program.stdin.write(line + "\n")
            program.stdin.flush()

        counts = []
        for case in cases:
            say(" ||| ".join(["SCORE", *case["references"], case["caption"]]))
            counts.append(program.stdout.readline().strip())
        say(" ||| ".join(["EVAL", *counts]))
        for case in cases:
            case["score"] = float(program.stdout.readline())
        total = float(program.stdout.readline())
        program.stdin.close()
    golden = {"tables": TABLES, "paraphrases": PARAPHRASES, "cases": cases, "total": total}
    OUT.write_text(json.dumps(golden, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    print(f"{OUT}: {len(cases)} captions, METEOR {total:.6f}")


if __name__ == "__main__":
    main()
