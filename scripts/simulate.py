#!/usr/bin/env python3
"""Predicts what experiments/paper cost on a card: `make simulate`.

Stages are executed by the real worker on a CUDA stand-in that computes shapes, not values (scripts/stand-in): launches, synchronisations and
memory are counted as the program causes them, and a roofline clock for each card of experiments/devices.yaml says how long they take. A stage
is run at two sizes (steps, samples, items) on models with two numbers of blocks; since everything but the clock's overlap is linear in both,
the figures of the published model and the published size follow. `--full` runs models with all their blocks, with the same figures.

    scripts/simulate.py                        both models: a training step in its variants, an evaluation, prunings of the whole model
    scripts/simulate.py --models flan-t5-xl    one of them
    scripts/simulate.py --stages               every kind of stage of experiments/paper, then the hours of each experiment
    scripts/simulate.py --stages --kinds adapt     some kinds of stages

Trainings run one and two steps. A worker writes a checkpoint no sooner than five seconds after a training's start, and never after the last
step, so none falls into the difference unless one simulated step takes longer than that; such a training is refused, not corrected.
"Teacher cached" is a training that asks no teacher: the divergence and reading the cached answers are not in its figures.
    scripts/simulate.py --markdown             tables in Markdown

Not in the times: the host's own work (decoding images, tokens, packing masks, scoring), loading weights from disk, kernels that reach less
than the card's file says. Memory is what tensors take; half a gigabyte is left for the CUDA context. Values mean nothing here: searches run
to their longest, and a pruning that draws its mask on the device cannot be certified.
"""

import argparse
import copy
import os
import sys
from collections import Counter
from pathlib import Path

import stages

CONTEXT = 0.5e9
IMAGES = 256
# Sizes that are measured, for each kind: enough that the second is in the steady state.
SIZES = {"statistics": (2, 6), "sensitivity": (2, 6), "prune": (2, 6), "adapt": (1, 2)}
EVALUATED = {"vqav2": (512, 1024), "okvqa": (128, 256), "gqa": (512, 1024), "nocaps": (128, 256), "flickr30k": (128, 160)}


def size_of(stage):
    """How often a stage does what it does: samples, steps or items. 1 for what has no size."""
    match stage["stage"]:
        case "adapt":
            return stage["training"]["steps"]
        case "evaluate":
            return min(stage["items"], stages.ITEMS[stage["task"]])
        case "sensitivity" if stage["samples"]:
            return stage["samples"]
        case "prune" if "reads" in stage:
            return 1
        case "prune" | "statistics" | "sensitivity" if stage.get("calibration"):
            samples = stage["calibration"]["questions"] + stage["calibration"]["captions"]
            return stage["calibration"]["images"] * samples
    return 1


def resized(stage, size):
    """The same stage with another size."""
    stage = copy.deepcopy(stage)
    match stage["stage"]:
        case "adapt":
            stage["training"].update(steps=size, samples=min(IMAGES, stage["training"]["samples"]))
        case "evaluate":
            stage["items"] = size
        case "prune" | "statistics" | "sensitivity" if stage.get("calibration"):
            stage["calibration"].update(images=size, questions=0, captions=1)
            if stage.get("samples"):
                stage["samples"] = size
    return stage


def sizes_of(stage):
    """The two sizes that are measured; one where a stage has none."""
    if stage["stage"] == "merge" or "reads" in stage or stage["stage"] == "prune" and not stage.get("calibration"):
        return (1,)
    return EVALUATED[stage["task"]] if stage["stage"] == "evaluate" else SIZES[stage["stage"]]


def cost_class(stage):
    """What tells stages of different cost apart: not seeds, ratios, ranks or the budget's division."""
    kind = stage["stage"]
    match kind:
        case "prune":
            pattern = "N:M" if stage["pattern"] != "unstructured" else stage["group"] or "row"
            stored = ", stored statistics" if "reads" in stage else ""
            return f"prune {stage['tower']}", f"{stage['metric']} {pattern}{stored}"
        case "statistics":
            return f"statistics {stage['tower']}", "+".join(name for name, wanted in stage["needs"].items() if wanted)
        case "sensitivity":
            return f"sensitivity {stage['tower']}", stage["measurement"]["measure"]
        case "adapt":
            training = stage["training"]
            whole = all(training[tower] for tower in ("vision", "qformer", "language"))
            words = ["sparse" if stage["masked"] else "dense", "distilled" if training["distill"] else "", "" if whole else "some towers"]
            return f"adapt, {training['batch']} images", " ".join(word for word in words if word)
        case "evaluate":
            return f"evaluate {stage['task']}", f"beam {stage['beams']}" if stage.get("beams") else ""
    return kind, ""


class Bench:
    """A model with some blocks, its data and the stages that others read; measures stages. Its weights are zeros, or random."""

    def __init__(self, work, model, blocks, random=False):
        self.blocks = blocks
        self.folder = work / model.name / "-".join(map(str, blocks))
        self.report = self.folder / "report.json"
        self.data = work / "data"
        if not (self.data / "complete").exists():
            stages.clear(self.data)
            stages.benchmarks(self.data, IMAGES)
            (self.data / "complete").touch()
        self.model = stages.hollow(model.name, self.folder / "hollow", blocks)
        if random:
            self.model = stages.filled(self.model, self.folder / "random")
        self.matcher = stages.hollow(stages.MATCHER, self.folder / "matcher", (blocks[0], 0))
        on_cpu = stages.Worker(self.folder / "store")
        data = {"source": "folder", "seed": 0, "root": str(self.data)}
        dense = {"stage": "dense", "preset": None, "checkpoint": str(self.model), "data": data, "seed": 0, "steps": None}
        self.dense = self.published(on_cpu, dense)
        mask = {"stage": "prune", "metric": "magnitude", "pattern": "2:4"}
        mask |= dict.fromkeys(["sparsity", "group", "calibration", "data", "seed"])
        self.masks = [self.published(on_cpu, {**mask, "tower": tower}, dense=self.dense) for tower in ("vision", "language")]
        self.adapter = None

    @property
    def adapters(self):
        """Where an adapter is kept for the merge that reads it. No other stage sees it: a training that finds its result trains nothing."""
        return self.folder / "adapters"

    @staticmethod
    def published(worker, stage, **inputs):
        asked = stages.node(stage, **inputs)
        worker.execute(asked)
        return asked["key"]

    def placed(self, stage):
        """The stage with this bench's folders."""
        stage = {name: value for name, value in copy.deepcopy(stage).items() if name != "reads"}
        if stage.get("data"):
            stage["data"]["root"] = str(self.data)
        if (stage.get("retrieval") or {}).get("checkpoint"):
            stage["retrieval"]["checkpoint"] = str(self.matcher)
        stage.pop("budget", None)  # its division costs nothing on the device
        if stage.get("asking"):
            # No end is found by values, so the least length decides.
            stage["asking"]["min-new-tokens"] = stage["asking"]["max-new-tokens"]
        if stage["stage"] != "dense":
            stage["compute"] = stage.get("compute") or "bfloat16"
        return stage

    def asked(self, stage, **inputs):
        stage, kind = self.placed(stage), stage["stage"]
        if kind in ("adapt", "evaluate"):
            return stages.node(stage, dense=self.dense, masks=self.masks)
        if kind == "merge":
            return stages.node(stage, dense=self.dense, masks=self.masks, adapter=self.adapter)
        later = kind == "prune" and stage["tower"] == "language" and (stage.get("calibration") or {}).get("propagate") == "pruned"
        return stages.node(stage, dense=self.dense, masks=self.masks[:1] if later else [], **inputs)

    def measure(self, stage):
        """Executes a stage on the stand-in and gives its counts."""
        store = self.folder / "measured"
        stages.clear(store)
        self.report.unlink(missing_ok=True)
        shipped = (self.folder / "store", self.adapters) if stage["stage"] == "merge" else (self.folder / "store",)
        worker = stages.Worker(store, "cuda:0", stages.stand_in(self.report), shipped=shipped)
        inputs = {}
        if "reads" in stage:
            statistics = self.asked(resized(stage["reads"], 1))
            worker.execute(statistics)
            inputs["statistics"] = statistics["key"]
        asked = self.asked(stage, **inputs)
        # Masks that were chosen without values do not hold what was asked of them; everything is done by then.
        worker.execute(asked, may_fail="`" if stage["stage"] in ("prune", "merge") else "")
        if stage["stage"] == "adapt" and self.adapter is None:
            self.adapter = asked["key"]
            stages.clear(self.adapters)
            (store / asked["key"][:2]).rename(self.adapters / asked["key"][:2])
        return stages.Counts.read(self.report)


class Prediction:
    """Counts of a stage of a published model: a part that every size has, one for each step, sample or item, and peak memory in bytes."""

    def __init__(self, fixed, each, peak):
        self.fixed, self.each, self.peak = fixed, each, peak

    def total(self, size):
        return self.fixed.combine(self.each, size)

    @classmethod
    def measured(cls, bench, stage):
        """Of the model of one bench."""
        sizes = sizes_of(stage)
        counts = [bench.measure(resized(stage, size)) for size in sizes]
        if len(sizes) == 1:
            return cls(counts[0], stages.Counts(), counts[0].peak)
        each = stages.Counts().combine(counts[1].combine(counts[0], -1), 1 / (sizes[1] - sizes[0]))
        if stage["stage"] == "adapt" and each.down > 1e6:
            raise stages.Failed("a checkpoint fell into the simulated steps; run it again while the machine is idle")
        return cls(counts[0].combine(each, -sizes[0]), each, counts[1].peak)

    @classmethod
    def of(cls, benches, model, stage):
        """Of the published model: measured, or continued from two smaller models by the steps between them."""
        small, *larger = [cls.measured(bench, stage) for bench in benches]
        if not larger:
            return small
        steps = model.steps_to_published()
        onward = lambda a, b: a.combine(b.combine(a, -1), steps)
        return cls(
            onward(small.fixed, larger[0].fixed), onward(small.each, larger[0].each), small.peak + steps * (larger[0].peak - small.peak)
        )


# What a training could do instead, as settings of its stage; a row is left out where the worker does not know the setting. A teacher whose
# answers are cached is one that is not asked: what is left of a distillation is the divergence, which is small.
ALTERNATIVES = {
    "recomputed": {"recompute": "blocks"},
    "teacher cached": {"distill": None},
    "recomputed, teacher cached": {"recompute": "blocks", "distill": None},
}


def rows_of(model, benches, kinds, chosen_cards):
    """Every class of stage of a model's experiments, measured; and how many stages of which size an experiment has of it."""
    needed, examples = {}, {}
    for experiment in model.experiments:
        nodes = {asked["key"]: asked for asked in stages.stages_of(experiment)}
        for asked in nodes.values():
            stage = asked["stage"]
            if asked["inputs"].get("statistics"):
                stage = {**stage, "reads": nodes[asked["inputs"]["statistics"]]["stage"]}
            if stage["stage"] == "dense" or kinds and stage["stage"] not in kinds:
                continue
            name = cost_class(stage)
            examples.setdefault(name, stage)
            needed.setdefault(experiment, Counter())[name, size_of(stage)] += 1
    rows = {}
    order = ["statistics", "sensitivity", "prune", "adapt", "merge", "evaluate"]
    for name, stage in sorted(examples.items(), key=lambda item: (order.index(item[1]["stage"]), item[0])):
        variants = {"": stage}
        if stage["stage"] == "adapt" and stage["training"]["distill"]:
            variants |= {word: {**stage, "training": {**stage["training"], **change}} for word, change in ALTERNATIVES.items()}
        for word, variant in variants.items():
            what, how = name
            label = (what, ", ".join(filter(None, (how, word))))
            stages.log(f"  {' '.join(label)}")
            try:
                rows[label] = (size_of(stage), Prediction.of(benches, model, variant))
            except stages.Failed as failure:
                if not word:
                    stages.log(f"    {failure}")
                elif "not a request" not in str(failure):
                    raise
    return needed, rows


# Prunings of a whole model that are shown: methods and patterns as crates/prune/examples/tower_speed.rs has them.
PRUNINGS = [("wanda", "50"), ("sparsegpt", "50"), ("sparsegpt", "2:4"), ("dsnot", "50")]
PRUNED_WITH = 128


def pruning(benches, model, method, pattern):
    """Counts of pruning both towers of a published model in memory, continued from two smaller models."""
    counts = []
    for bench in benches:
        report = bench.folder / "pruning.json"
        report.unlink(missing_ok=True)
        what = [model.name, method, pattern, PRUNED_WITH, "cuda:0", "bfloat16", *bench.blocks]
        stages.run([stages.PROGRAMS / "examples/tower_speed", *what], env={**os.environ, **stages.stand_in(report)})
        counts.append(stages.Counts.read(report))
    if len(counts) == 1:
        return counts[0]
    return counts[0].combine(counts[1].combine(counts[0], -1), model.steps_to_published())


# Images of the training step that is shown.
SHOWN_BATCH = {"flan-t5-xl": 64, "vicuna-7b": 16}


def overview(name, model, benches, chosen, markdown):
    """A training step in its variants, and an evaluation."""
    examples = {cost_class(asked["stage"]): asked["stage"] for asked in stages.stages_of(model.experiments[0])}
    adapt = next(stage for (_, how), stage in examples.items() if how == "sparse distilled")
    batch = SHOWN_BATCH[name]
    shown = {f"training step, {batch} images": adapt}
    shown |= {f"  {word}": {**adapt, "training": {**adapt["training"], **change}} for word, change in ALTERNATIVES.items()}
    for stage in shown.values():
        stage["training"] = {**stage["training"], "batch": batch}
    shown |= {"evaluation, VQAv2, a question": examples["evaluate vqav2", "beam 5"]}
    shown |= {f"{what}, {how}, a sample": stage for (what, how), stage in examples.items() if how == "wanda row"}
    lines = []
    for label, stage in shown.items():
        stages.log(f"  {label.strip()}")
        try:
            found = Prediction.of(benches, model, stage)
        except stages.Failed as failure:
            stages.log(f"    {failure}")
            continue
        each = found.each
        counted = [f"{found.peak / 1e9:.1f} GB", f"{each.launches:,.0f}", f"{each.syncs:,.2f}".rstrip("0").rstrip("."), f"{each.tflop:.3g}"]
        times = [short(each.seconds[card]) + ("" if fits(card, found.peak) else " *") for card in chosen]
        lines.append([model.name, label, *counted, *times])
        stages.log(f"    {', '.join([*counted, times[0]])}")
    for method, pattern in PRUNINGS:
        label = f"{method} {pattern}, {PRUNED_WITH} samples, the whole model"
        stages.log(f"  {label}")
        found = pruning(benches, model, method, pattern)
        counted = [f"{found.peak / 1e9:.1f} GB", f"{found.launches:,.0f}", f"{found.syncs:,.0f}", f"{found.tflop:.3g}"]
        times = [short(found.seconds[card]) + ("" if fits(card, found.peak) else " *") for card in chosen]
        lines.append([model.name, label, *counted, *times])
        stages.log(f"    {', '.join([*counted, times[0]])}")
    print()
    table(["model", "", "peak", "launches", "syncs", "TFLOP", *chosen], lines, markdown)
    print("\n* does not fit into the card's memory" if any("*" in cell for line in lines for cell in line) else "", flush=True)


def fits(card, peak):
    return peak + CONTEXT <= float(stages.cards()[card.removesuffix("+tf32")]["memory-gb"]) * 1e9


def short(seconds):
    """Three digits of a time that may be far below a second."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def duration(seconds):
    if seconds < 100:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def table(head, rows, markdown):
    """Text columns; numbers to the right."""
    if markdown:
        print("| " + " | ".join(head) + " |")
        print("| --- | --- |" + " ---: |" * (len(head) - 2))
        for row in rows:
            print("| " + " | ".join(row) + " |")
        return
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows]:
        print("  ".join(cell.ljust(width) if i < 2 else cell.rjust(width) for i, (cell, width) in enumerate(zip(row, widths))).rstrip())


def show(model, needed, rows, chosen, markdown):
    unit = {"adapt": "step", "evaluate": "item"}
    print(f"\n{model.name}, bf16: device memory, what each unit issues, and the time of a whole stage (- where it does not fit)\n")
    lines = []
    for (what, how), (size, found) in rows.items():
        whole = found.total(size)
        times = [duration(whole.seconds[card]) if fits(card, found.peak) else "-" for card in chosen]
        each = found.each if found.each.launches else found.fixed
        name = unit.get(what.split()[0].rstrip(","), "sample") if found.each.launches else "stage"
        issued = [f"{each.launches:,.0f}", f"{each.syncs:,.2f}".rstrip("0").rstrip("."), short(each.seconds[chosen[0]])]
        figures = [f"{found.peak / 1e9:.1f} GB", f"{size:,}", name, *issued]
        lines.append([what, how, *figures, *times])
    table(["stage", "", "peak", "size", "unit", "launches", "syncs", f"time ({chosen[0]})", *chosen], lines, markdown)

    print("\nexperiments: device hours, every distinct stage once\n")
    lines = []
    for experiment, counted in needed.items():
        lacking = sorted({" ".join(name) for name, _ in counted if name not in rows})
        known = {name: rows[name][1] for name, _ in counted if name in rows}
        hours = []
        for card in chosen:
            total = sum(number * known[name].total(size).seconds[card] for (name, size), number in counted.items() if name in known)
            hours.append(duration(total) if all(fits(card, found.peak) for found in known.values()) else "-")
        lines.append([experiment, f"without {', '.join(lacking)}" if lacking else "", str(sum(counted.values())), *hours])
    table(["experiment", "", "stages", *chosen], lines, markdown)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--models", nargs="+", choices=stages.MODELS, default=list(stages.MODELS))
    arguments.add_argument("--stages", action="store_true", help="every kind of stage of experiments/paper (half an hour or more)")
    arguments.add_argument("--kinds", nargs="+", choices=["statistics", "sensitivity", "prune", "adapt", "merge", "evaluate"], default=[])
    arguments.add_argument("--cards", nargs="+", default=list(stages.cards()), help="ids of experiments/devices.yaml; `ID+tf32` with TF32")
    arguments.add_argument("--full", action="store_true", help="all blocks (needs 8 to 16 GB of address space and longer)")
    arguments.add_argument("--markdown", action="store_true")
    arguments.add_argument("--work", type=Path, default=stages.TARGET / "simulate", help="folder for what is made on the way")
    options = arguments.parse_args()
    if options.kinds and not options.stages:
        arguments.error("--kinds needs --stages")
    if "merge" in options.kinds:
        options.kinds.append("adapt")  # what is merged
    for name in options.models:
        model = stages.MODELS[name]
        depths = [model.blocks] if options.full else model.measured
        stages.log(f"{model.name}, blocks {' and '.join(map(str, depths))}")
        benches = [Bench(options.work.resolve(), model, blocks) for blocks in depths]
        if not options.stages:
            overview(name, model, benches, options.cards, options.markdown)
            continue
        needed, rows = rows_of(model, benches, options.kinds, options.cards)
        show(model, needed, rows, options.cards, options.markdown)


if __name__ == "__main__":
    try:
        main()
    except stages.Failed as failure:
        sys.exit(f"simulate: {failure}")
