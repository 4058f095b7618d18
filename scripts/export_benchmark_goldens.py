#!/usr/bin/env python3
"""Predictions made up for the benchmarks of today, and what their official rules make of them.

    python3 scripts/export_benchmark_goldens.py crates/eval/tests/fixtures/benchmarks.json [--lmms-eval FOLDER]

The rules are written here from the published descriptions and evaluation scripts of TextVQA, VizWiz, POPE, ScienceQA, MMBench and MME.
With --lmms-eval, the folder of an unpacked source distribution of lmms-eval (`pip download --no-deps --no-binary :all: lmms_eval`, 0.7.3; its
scorers need pandas, loguru, requests and pyyaml), the same predictions go through its scorers, too, and must get the same: all of TextVQA's,
ScienceQA's and MMBench's; of POPE's and MME's those that say nothing but yes or no, for which both agree on the rules.
"""

import argparse
import importlib.util
import json
import random
import re
import sys
import types
from collections import defaultdict
from pathlib import Path

NUMBERS = {word: str(n) for n, word in enumerate("zero one two three four five six seven eight nine ten".split())} | {"none": "0"}
MARKS = ';/[]"{}()=+\\_-><@`,?!'
# Those among the drawn answers; the whole list is the benchmark's.
CONTRACTIONS = {"dont": "don't", "thats": "that's", "isnt": "isn't", "yall": "y'all", "Im": "I'm", "oclock": "o'clock"}
SAID = [
    "stop", "Stop.", "the stop sign", "dr. pepper", "Dr Pepper", "coca-cola", "coca cola", "1,000", "1000", "two", "2", "none", "zero", "don't", "dont",
    "that's all", "thats all", "men's", "men 's", "a/c", "10:30", "10.5", "yes", "Yes!", "o'clock", "oclock", "5 oclock", "unanswerable", "Unanswerable",
    "answering does not require reading text in the image", "\tblack\n", "black & white", "black and white", "what?", "u.s.a.", "usa", "", "(left)", "left",
    "isnt", "yall", "nike,", "a nike", "red-bull", "red -bull", "é", "É",
]


def normal(text):
    """Punctuation, numbers, articles and contractions, as the VQA evaluation has them."""
    grouped = re.search(r"\d,\d", text)
    out = text
    for mark in MARKS:
        spaced = mark + " " in text or " " + mark in text or grouped
        out = out.replace(mark, "" if spaced else " ")
    out = re.sub(r"\.(?!\d)", "", out, count=32)
    words = [NUMBERS.get(word, word) for word in out.lower().split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ("a", "an", "the"))


def flat(text):
    return text.replace("\n", " ").replace("\t", " ").strip()


def credit(said, answers):
    others = [sum(answer == said for j, answer in enumerate(answers) if j != i) for i in range(len(answers))]
    return sum(min(1, count / 3) for count in others) / len(answers)


def mean(values):
    values = list(values)
    return sum(values) / len(values)


def textvqa(items):
    def text(answer):
        answer = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
        return normal(flat(answer))

    scores = [100 * credit(text(item["prediction"]), [text(answer) for answer in item["answers"]]) for item in items]
    return {"textvqa": mean(scores)}


def vizwiz(items):
    said = [normal(flat(item["prediction"])) for item in items]
    scores = [100 * credit(one, item["answers"]) for one, item in zip(said, items)]
    found = {"vizwiz": mean(scores)}
    for kind in {item["template"] for item in items}:
        found[kind] = mean(score for score, item in zip(scores, items) if item["template"] == kind)
    told, true = [one == "unanswerable" for one in said], [item["template"] == "unanswerable" for item in items]
    both = sum(a and b for a, b in zip(told, true))
    found["unanswerable-f1"] = 200 * both / (sum(told) + sum(true))
    return found


def pope(items):
    def yes(text):
        if "." in text:
            text = text.split(".")[0]
        words = text.replace(",", "").split(" ")
        return not ("No" in words or "not" in words or "no" in words)

    found, splits = {}, defaultdict(list)
    for item in items:
        splits[item["template"]].append((yes(item["prediction"]), item["answers"][0] == "yes"))
    for split, pairs in splits.items():
        tp, fp, fn = (sum(pair == wanted for pair in pairs) for wanted in [(True, True), (True, False), (False, True)])
        precision, recall = tp / (tp + fp), tp / (tp + fn)
        found[split] = 100 * mean(a == b for a, b in pairs)
        found[f"{split}-precision"], found[f"{split}-recall"] = 100 * precision, 100 * recall
        found[f"{split}-f1"] = 200 * precision * recall / (precision + recall)
        found[f"{split}-yes"] = 100 * mean(a for a, _ in pairs)
    found["f1"] = mean(found[f"{split}-f1"] for split in splits)
    found["pope"] = 100 * mean(a == b for pairs in splits.values() for a, b in pairs)
    return found


COGNITION = ["commonsense-reasoning", "numerical-calculation", "text-translation", "code-reasoning"]


def mme(items):
    def answer(text):
        text = text.lower()
        if text in ("yes", "no"):
            return text
        return "yes" if "yes" in text[:4] else "no" if "no" in text[:4] else "other"

    images = defaultdict(lambda: defaultdict(list))
    for item in items:
        images[item["template"]][item["id"].rsplit("-", 1)[0]].append(answer(item["prediction"]) == item["answers"][0])
    found = {}
    for subtask, pairs in images.items():
        right = [one for pair in pairs.values() for one in pair]
        found[subtask] = 100 * mean(right) + 100 * mean(all(pair) for pair in pairs.values())
    found["cognition"] = sum(found[subtask] for subtask in COGNITION)
    found["perception"] = sum(value for subtask, value in found.items() if subtask in images and subtask not in COGNITION)
    found["mme"] = found["perception"] + found["cognition"]
    return found


LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def likeliest(item, per_token):
    values = [value / (tokens if per_token else 1) for value, tokens in zip(item["log-likelihoods"], item["tokens"])]
    return values.index(max(values)) == item["answer"]


def scienceqa(items):
    def right(item):
        said, letter = item["prediction"].strip(), LETTERS[item["answer"]]
        return said.lower() == letter.lower() or (len(said) >= 2 and said[0].isupper() and said[1] == "." and said[0] == letter)

    found = {"scienceqa": 100 * mean(right(item) for item in items)}
    for kind in {kind for item in items for kind in item["kinds"]}:
        found[kind] = 100 * mean(right(item) for item in items if kind in item["kinds"])
    found["likelihood"] = 100 * mean(likeliest(item, False) for item in items)
    found["likelihood-per-token"] = 100 * mean(likeliest(item, True) for item in items)
    return found


def mmbench(items):
    def infer(item):
        words = item["prediction"].split()
        for number, (before, after) in enumerate([("", "")] + [("", end) for end in (".", ",", ":", ")", ").")] + [("(", ")"), ("(", ").")] + [(":", end) for end in ("", ",", ".", ")", ").")]):
            there = [letter for letter in "ABCDE" if before + letter + after in words]
            if len(there) == 1 and not (number == 0 and "A" in words and len(words) > 3):
                return there[0]
        said = item["prediction"].lower()
        there = [letter for letter, option in zip("ABCD", item["options"]) if option.lower() in said]
        return there[0] if len(there) == 1 else None

    questions, whole, tokens = defaultdict(list), defaultdict(list), defaultdict(list)
    kinds = {}
    for item in items:
        question = item["id"].rsplit("-", 1)[0]
        questions[question].append(infer(item) == LETTERS[item["answer"]])
        whole[question].append(likeliest(item, False))
        tokens[question].append(likeliest(item, True))
        kinds[question] = item["kinds"]
    hits = lambda of: {question: 100 * all(right) for question, right in of.items()}
    found = {"mmbench": mean(hits(questions).values()), "likelihood": mean(hits(whole).values()), "likelihood-per-token": mean(hits(tokens).values())}
    for kind in {kind for names in kinds.values() for kind in names}:
        found[kind] = mean(hit for question, hit in hits(questions).items() if kind in kinds[question])
    return found


def answer(id, prediction, answers, template):
    return {"kind": "answer", "id": id, "prompt": "", "prediction": prediction, "answers": answers, "template": template}


def drawn():
    draw = random.Random(7)
    some = lambda: [draw.choice(SAID[:draw.randint(2, len(SAID))]) for _ in range(10)]
    tasks = {"textvqa": [], "vizwiz": [], "pope": [], "mme": [], "scienceqa": [], "mmbench": []}
    for number in range(200):
        answers = some()
        told = draw.choice(answers) if draw.random() < 0.6 else draw.choice(SAID)
        tasks["textvqa"].append(answer(str(number), told, answers, None))
        answers = some()
        if draw.random() < 0.3:
            answers = ["unanswerable"] * 7 + answers[:3]
        told = draw.choice(answers) if draw.random() < 0.6 else draw.choice(SAID)
        kind = draw.choice(["other", "number", "yes-no"]) if answers[0] != "unanswerable" else "unanswerable"
        tasks["vizwiz"].append(answer(f"VizWiz_val_{number:08d}.jpg", told, answers, kind))
    spoken = ["Yes", "No", "yes", "no", "yes", "Yes, there is a dog.", "No, there is not.", "There is no dog in the image.", "There is not. Yes.", "no.", "NO", "None",
              "I cannot see it", "Nothing", "not sure", "a dog", "", "No\n", "yes, no doubt"]
    for number in range(240):
        split = ["random", "popular", "adversarial"][number % 3]
        tasks["pope"].append(answer(f"COCO_val2014_{number // 6:012d}.jpg-{split}{number}", draw.choice(spoken), [draw.choice(["yes", "no"])], split))
    subtasks = ["existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "ocr"] + COGNITION
    spoken = ["Yes", "No", "yes", "no", "YES.", "Not at all", "I say yes", "a yes", "nope", "unknown", "maybe", "", "y e s", "know", "yes or no"]
    for number in range(70):
        subtask = subtasks[number % len(subtasks)]
        for question, right in enumerate(["yes", "no"]):
            told = right if draw.random() < 0.5 else draw.choice(spoken)
            tasks["mme"].append(answer(f"{subtask}/{number:04d}-{question + 1}", told, [right], subtask))
    nouns = ["a cat", "A dog", "two birds", "cat", "the sea", "none of these", "a", "C", "blue (dark)"]
    for number in range(150):
        options = draw.sample(nouns, draw.randint(2, 5))
        right = draw.randrange(len(options))
        letter = LETTERS[right] if draw.random() < 0.6 else draw.choice(LETTERS[:6])
        form = draw.choice(["{}", "{}.", "{}. {}", " {} ", "{l}", "({})", "The answer is {}.", "{}: {}", "Answer: {}", "", "{}\n", "É.", "{})"])
        told = form.replace("{l}", letter.lower()).replace("{}", letter, 1).replace("{}", draw.choice(options), 1)
        kinds = [draw.choice(["natural-science", "social-science", "language-science"]), draw.choice(["grades-1-6", "grades-7-12"])]
        tasks["scienceqa"].append(choice(draw, str(number), told, options, right, kinds))
    for number in range(60):
        options = draw.sample(nouns, draw.randint(2, 4))
        right, skill = draw.randrange(len(options)), draw.choice([0.0, 0.97, 0.97])
        kinds = [draw.choice(["image-topic", "ocr", "action-recognition"]), draw.choice(["coarse-perception", "logic-reasoning"])]
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            own = (right - turn) % len(options)
            target = own if draw.random() < skill else draw.randrange(len(options))
            form = draw.choice(["{}", "{}.", "({})", "{}. {o}", "The answer is {}", "It is {o}", "A picture of {o} {}", ":{}", "{}).", "I think that {} it is", "B and {}", "none"])
            told = form.replace("{}", LETTERS[target]).replace("{o}", turned[target])
            tasks["mmbench"].append(choice(draw, f"{number}-{turn}", told, turned, own, kinds))
    return tasks


def choice(draw, id, told, options, right, kinds):
    tokens = [draw.randint(1, 6) for _ in options]
    values = [round(-draw.uniform(0.2, 4) * count + (3 if at == right else 0), 4) for at, count in enumerate(tokens)]
    return {
        "kind": "choice", "id": id, "prompt": "", "prediction": told, "options": options, "answer": right, "log-likelihoods": values, "tokens": tokens,
        "kinds": kinds,
    }


def beside(folder, tasks, expected):
    """The same through lmms-eval's scorers."""
    sys.path.insert(0, str(folder))

    def load(name):
        spec = importlib.util.spec_from_file_location(name.replace("/", "_"), folder / "lmms_eval/tasks" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    def same(what, ours, theirs):
        print(f"{what}: {ours:.6f} here, {theirs:.6f} in lmms-eval")
        assert abs(ours - theirs) < 1e-9, what

    # What only writes files for servers is not needed.
    for name in ["lmms_eval", "lmms_eval.tasks", "lmms_eval.tasks._task_utils"]:
        sys.modules[name] = types.ModuleType(name)
    files = sys.modules["lmms_eval.tasks._task_utils.file_utils"] = types.ModuleType("files")
    files.generate_submission_file = None
    sys.modules["lmms_eval.tasks._task_utils.vqa_eval_metric"] = load("_task_utils/vqa_eval_metric")
    # Of MMBench, what its own rules do not match is wrong here.
    extract = sys.modules["lmms_eval.tasks._task_utils.mcq_extract"] = types.ModuleType("extract")
    extract.extract_mcq_answer = lambda *_, **__: None

    module = load("textvqa/utils")
    scores = [module.textvqa_process_results({"answers": list(item["answers"]), "question_id": 0}, [item["prediction"]]) for item in tasks["textvqa"]]
    same("TextVQA", expected["textvqa"]["textvqa"], 100 * mean(score["exact_match"] for score in scores))
    module = load("scienceqa/utils")
    docs = [dict(choices=item["options"], answer=item["answer"]) for item in tasks["scienceqa"]]
    scores = [module.sqa_process_results(doc, [item["prediction"]])["exact_match"] for doc, item in zip(docs, tasks["scienceqa"])]
    same("ScienceQA", expected["scienceqa"]["scienceqa"], 100 * mean(scores))

    module = load("mmbench/mmbench_evals")
    rows = []
    for item in tasks["mmbench"]:
        question, turn = map(int, item["id"].split("-"))
        row = dict(index=question + 1_000_000 * turn, question="", prediction=item["prediction"], answer=LETTERS[item["answer"]], category=item["kinds"][0])
        rows.append(row | {"l2-category": item["kinds"][1]} | {letter: option for letter, option in zip("ABCD", item["options"] + [float("nan")] * 4)})
    whole, kinds, wider = module.MMBench_Evaluator().eval_result(rows, "static")
    same("MMBench", expected["mmbench"]["mmbench"], 100 * whole)
    for kind, value in {**kinds, **wider}.items():
        same(f"MMBench, {kind}", expected["mmbench"][kind], 100 * value)

    plain = lambda item: item["prediction"] in ("Yes", "No", "yes", "no")
    module, items = load("pope/utils"), [item for item in tasks["pope"] if plain(item)]
    ours = pope(items)
    for split in ["random", "popular", "adversarial"]:
        results = [module.pope_process_results(dict(answer=item["answers"][0], question_id=0), [item["prediction"]])["pope_accuracy"] for item in items if item["template"] == split]
        for name, of in [("", module.pope_aggregate_accuracy), ("-precision", module.pope_aggregate_precision), ("-recall", module.pope_aggregate_recall), ("-f1", module.pope_aggregate_f1_score)]:
            same(f"POPE, {split}{name}", ours[split + name], 100 * of(results))

    module = load("mme/utils")
    module.eval_type_dict = {"Perception": [name for name in {item["template"] for item in tasks["mme"]} if name not in COGNITION]}
    items = [item if plain(item) else item | {"prediction": "maybe"} for item in tasks["mme"]]
    ours, results = mme(items), defaultdict(list)
    for item in items:
        doc = dict(answer=item["answers"][0], category=item["template"], question_id=item["id"].rsplit("-", 1)[0])
        for name, result in module.mme_process_results(doc, [item["prediction"]]).items():
            results[name].append(result)
    for name, found in results.items():
        same(f"MME, {name}", ours[name.split("_")[1]], module.mme_aggregate_results(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--lmms-eval", type=Path)
    options = parser.parse_args()
    tasks = drawn()
    rules = dict(textvqa=textvqa, vizwiz=vizwiz, pope=pope, mme=mme, scienceqa=scienceqa, mmbench=mmbench)
    expected = {task: rules[task](items) for task, items in tasks.items()}
    if options.lmms_eval:
        beside(options.lmms_eval, tasks, expected)
    lines = [json.dumps({"task": task, "expected": dict(sorted(expected[task].items())), "predictions": items}, separators=(",", ":")) for task, items in tasks.items()]
    options.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
