#!/usr/bin/env python3
"""Compares ressa with golden outputs of transformers, through the command line only.

Usage: python3 scripts/check_goldens.py GOLDENS [--ressa PROGRAM] [--only TEXT] [--verbose]   (needs numpy and safetensors, no torch)

GOLDENS holds one folder per seed with `models/<architecture>[--variant]`, `golden/<architecture>` and `images/`. Prints a line per
comparison with what was measured and what is allowed; exits with 1 if anything differs.

Tolerances: f32 tensors 3e-5 of the largest golden value (and at most ten times the rounding measured for them, where that is more),
pixels one grey level, tokens none. Computing in bfloat16, the labels' logits may be as far from the f32 golden as twice transformers' own.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

F32 = 3e-5


def read(path):
    """Tensors by name; bfloat16 as float32."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    types = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?", "BF16": "<u2"}
    tensors = {}
    for name, info in header.items():
        if name == "__metadata__":
            continue
        start, end = (8 + length + offset for offset in info["data_offsets"])
        values = np.frombuffer(raw[start:end], types[info["dtype"]]).reshape(info["shape"])
        if info["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = values
    return tensors


class Report:
    """Lines of a table, and whether all of them are well."""

    def __init__(self, verbose):
        self.failed = self.passed = 0
        self.verbose = verbose

    def line(self, where, what, well, found, allowed=""):
        self.passed += well
        self.failed += not well
        print(f"{'ok  ' if well else 'FAIL'}  {where:32}  {what:44}  {found}{f'  (allowed {allowed})' if allowed else ''}", flush=True)

    def close(self, where, what, found, golden, allowed=F32):
        """Largest difference as a share of the largest golden value."""
        if found is None or found.shape != golden.shape:
            return self.line(where, what, False, f"shape {None if found is None else found.shape}, not {golden.shape}")
        difference = np.abs(found.astype(np.float64) - golden.astype(np.float64))
        share = float(difference.max() / max(np.abs(golden).max(), 1e-30)) if golden.size else 0.0
        self.line(where, what, bool(np.isfinite(share) and share <= allowed), f"{share:.1e}", f"{allowed:.0e}")

    def equal(self, where, what, found, golden):
        self.line(where, what, found == golden, "equal" if found == golden else first_difference(found, golden))


def first_difference(found, golden):
    if isinstance(found, list) and isinstance(golden, list):
        if len(found) != len(golden):
            return f"{len(found)} entries, not {len(golden)}: {found} instead of {golden}"[:300]
        for at, (a, b) in enumerate(zip(found, golden)):
            if a != b:
                return f"entry {at}: {a} instead of {b}"[:300]
    return f"{found!r} instead of {golden!r}"[:300]


class Ressa:
    """The program."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder

    def run(self, *arguments, stdin=None):
        """Standard output, or an exception with standard error."""
        done = subprocess.run([self.program, *map(str, arguments)], input=stdin, capture_output=True, text=True)
        if done.returncode != 0:
            raise Failed(f"`{' '.join(map(str, arguments[:2]))}` exits with {done.returncode}: {done.stderr.strip()[-300:]}")
        return done.stdout

    def json(self, *arguments, stdin=None):
        return json.loads(self.run(*arguments, stdin=stdin))

    def tensors(self, *arguments):
        """Runs a command that writes tensors to `--output`."""
        output = self.folder / "output.safetensors"
        output.unlink(missing_ok=True)
        self.run(*arguments, "--output", output)
        return read(output)


class Failed(Exception):
    """A command that ended badly."""


class Case:
    """An architecture in one of its forms, with its golden."""

    def __init__(self, name, model, golden, images, ressa, report):
        self.name, self.model, self.images = name, model, images
        self.ressa, self.report = ressa, report
        self.folder = golden
        self.facts = json.loads((golden / "golden.json").read_text())
        self.tensors = read(golden / "golden.safetensors")
        self.config = json.loads((model / "config.json").read_text())
        self.vision = self.config.get("vision_config", {})
        self.queries = self.facts["num_query_tokens"]
        # Folders of 2023 have no image token: their queries come before the text by themselves.
        self.has_image_token = self.config.get("image_token_index") is not None or self.config.get("image_token_id") is not None
        self.is_bf16 = any(name.startswith("bf16_weights") for name in self.tensors) and "bf16" in model.name

    def step(self, what, check):
        try:
            check()
        except (Failed, KeyError, ValueError, json.JSONDecodeError, OSError) as error:
            self.report.line(self.name, what, False, f"{type(error).__name__}: {error}"[:400])

    def check(self):
        self.step("inspect", self.inspect)
        self.step("lab preprocess", self.preprocess)
        self.step("lab tokenize", self.tokenize)
        if self.is_bf16:
            self.step("lab forward of bf16 weights", self.forward_bf16)
        else:
            self.step("lab forward", self.forward)
            self.step("lab forward, padded left", self.forward_left)
            self.step("lab stats", self.stats)
            self.step("generate", self.generate)
        self.step("export", self.export)

    def files(self):
        return [self.images / name for name in self.facts["images"]]

    def inspect(self):
        found = self.ressa.json("inspect", self.model, "--json")
        weights = [path for path in self.model.glob("model*.safetensors")]
        names, size = set(), 0
        for path in weights:
            with safe_open(path, "numpy") as opened:
                names |= set(opened.keys())
            raw = path.open("rb")
            size += path.stat().st_size - 8 - int.from_bytes(raw.read(8), "little")
        counted = found["total"]["bytes"] + sum(leftover["bytes"] for leftover in found["leftovers"])
        self.report.line(self.name, "inspect: bytes of the weights", counted == size, f"{counted} of {size} bytes in {len(names)} tensors")
        self.report.equal(self.name, "inspect: problems", found["problems"], [])

    def preprocess(self):
        found = self.ressa.tensors("lab", "preprocess", "--model", self.model, "--images", *self.files())["pixel_values"]
        golden = self.tensors["pixel_values"]
        settings = json.loads((self.model / "preprocessor_config.json").read_text())
        grey = 1 / 255 / min(settings["image_std"])
        if found.shape != golden.shape:
            return self.report.line(self.name, "lab preprocess", False, f"shape {found.shape}, not {golden.shape}")
        levels = np.abs(found - golden).max() / grey
        self.report.line(self.name, "lab preprocess: grey levels", bool(levels <= 1.01), f"{levels:.4f}", "1")

    def tokenize(self):
        probes = json.loads((self.folder / "tokenization.json").read_text())
        for key, options in (("tokenizer", []), ("qformer_tokenizer", ["--qformer"])):
            cases = probes.get(key, {}).get("cases", [])
            if not self.has_image_token:
                # The token that a later release has added is text to this folder.
                cases = [case for case in cases if not case.get("special") and "<image>" not in case["text"]]
            if not cases:
                continue
            texts = json.dumps([case["text"] for case in cases])
            for field, more in (("ids", []), ("ids_no_special_tokens", ["--no-special"])):
                found = self.ressa.json("lab", "tokenize", "--model", self.model, *options, *more, stdin=texts)
                what = f"lab tokenize{''.join(' ' + option for option in options + more)}"
                self.report.equal(self.name, f"{what}: {len(cases)} texts", found, [case[field] for case in cases])

    def batch(self, prefix):
        """Inputs of a golden batch. A folder without image tokens gets the batch without them."""
        skip = 0 if self.has_image_token else self.queries
        inputs = {"pixel_values": self.tensors["pixel_values"]}
        for name in ("input_ids", "attention_mask", "labels"):
            if f"{prefix}.{name}" in self.tensors:
                tensor = self.tensors[f"{prefix}.{name}"]
                is_language = name != "labels" or self.decoder_only()
                inputs[name] = tensor[:, skip:] if is_language else tensor
        for name in ("qformer_input_ids", "qformer_attention_mask"):
            if f"in.{name}" in self.tensors:
                inputs[name] = self.tensors[f"in.{name}"]
        return {name: np.ascontiguousarray(tensor) for name, tensor in inputs.items()}

    def decoder_only(self):
        return "t5_encoder_last_hidden_state" not in self.tensors

    def run_forward(self, inputs, model=None, *options):
        path = self.ressa.folder / "inputs.safetensors"
        save_file(inputs, path)
        return self.ressa.tensors("lab", "forward", "--model", model or self.model, "--inputs", path, *options)

    def compare_forward(self, found, where):
        for name in ("vision_last_hidden_state", "qformer_query_output", "language_model_inputs"):
            self.report.close(where, f"lab forward: {name}", found.get(name), self.tensors[name])
        self.report.close(where, "lab forward: logits", found.get("logits"), self.tensors["train_logits"])
        loss = found.get("loss")
        loss = None if loss is None else loss.reshape(-1)
        self.report.close(where, "lab forward: loss", loss, self.tensors["train_loss"])

    def forward(self):
        inputs = self.batch("train")
        self.compare_forward(self.run_forward(inputs), self.name)
        later = self.folder / "config.v5.json"
        if later.exists() and self.has_image_token:
            copy = self.ressa.folder / "v5"
            shutil.rmtree(copy, ignore_errors=True)
            copy.mkdir()
            for item in self.model.iterdir():
                if item.name != "config.json":
                    (copy / item.name).symlink_to(item.resolve())
            shutil.copy(later, copy / "config.json")
            self.compare_forward(self.run_forward(inputs, copy), f"{self.name}, config of version 5")

    def forward_left(self):
        golden = self.tensors.get("prompt_logits_last4")
        if golden is None:
            return
        logits = self.run_forward(self.batch("in"))["logits"]
        self.report.close(self.name, "lab forward: left-padded prompts", logits[:, -4:], golden)

    def forward_bf16(self):
        inputs = self.batch("train")
        labels = inputs["labels"]
        if self.decoder_only():
            rows, columns = np.nonzero(labels != -100)
            columns = columns - 1
        else:
            rows, columns = np.nonzero(labels != -100)
        exact = self.tensors["bf16_weights_fp32_compute.answer_logits"]
        theirs = self.tensors["bf16_weights_bf16_compute.answer_logits"]
        found = self.run_forward(inputs, None, "--dtype", "float32")
        self.report.close(self.name, "lab forward --dtype float32: logits", found["logits"][rows, columns], exact)
        self.report.close(self.name, "lab forward --dtype float32: loss", found["loss"].reshape(-1), self.tensors["bf16_weights_fp32_compute.train_loss"])
        found = self.run_forward(inputs, None, "--dtype", "bfloat16")
        rounding = float(np.abs(theirs - exact).max() / np.abs(exact).max())
        self.report.close(self.name, "lab forward --dtype bfloat16: logits", found["logits"][rows, columns].astype(np.float32), exact, 2 * rounding)

    def stats(self):
        golden = read(self.folder / "stats.safetensors")
        requests = [
            {"image": str(image), "prompt": prompt, "answer": answer}
            for image, prompt, answer in zip(self.files(), self.facts["prompts"], self.facts["answers"])
        ]
        path = self.ressa.folder / "requests.json"
        path.write_text(json.dumps(requests))
        # As in the golden, a decoder-only model reads the answer's end token too; a pruning never feeds it.
        found = self.ressa.tensors("lab", "stats", "--model", self.model, "--requests", path, "--end-token")
        linear = lambda tensors: {name.rsplit(".", 1)[0] for name in tensors}
        ours, theirs = linear(found), linear(golden)
        # Every linear of the blocks must be there; heads and projections outside of them may be.
        blocks = {name for name in theirs if ".layers." in name or ".block." in name}
        blocks = {name for name in blocks if name.startswith(("vision_model.", "language_model."))}
        self.report.line(self.name, f"lab stats: {len(ours)} linears", blocks <= ours <= theirs, f"{sorted(blocks - ours)[:3]} missing, {sorted(ours - theirs)[:3]} unknown")
        for kind in ("sqsum", "sum"):
            shares = []
            for name in sorted(ours & theirs):
                a, b = found[f"{name}.{kind}"].astype(np.float64), golden[f"{name}.{kind}"].astype(np.float64)
                shares.append((np.inf if a.shape != b.shape else np.abs(a - b).max() / max(np.abs(b).max(), 1e-30), name))
            worst, name = max(shares, default=(np.inf, "nothing in common"))
            self.report.line(self.name, f"lab stats: {kind}", bool(worst <= F32), f"{worst:.1e} at {name}", f"{F32:.0e}")
        rows = [name for name in sorted(ours & theirs) if int(found[f"{name}.rows"].reshape(-1)[0]) != int(golden[f"{name}.rows"].reshape(-1)[0])]
        self.report.line(self.name, "lab stats: rows", not rows, f"{len(rows)} differ{': ' + rows[0] if rows else ''}")

    def generate(self):
        requests = [{"image": str(image), "prompt": prompt} for image, prompt in zip(self.files(), self.facts["prompts"])]
        path = self.ressa.folder / "requests.json"
        path.write_text(json.dumps(requests))
        for mode, golden in self.facts["generate"].items():
            options = [part for key, value in golden["options"].items() for part in option(key, value)]
            found = self.ressa.json("generate", "--model", self.model, "--requests", path, *options, "--json")
            self.report.equal(self.name, f"generate --requests: {mode}", [answer["tokens"] for answer in found], golden["tokens"])
            self.report.equal(self.name, f"generate --requests: text of {mode}", [answer["text"] for answer in found], golden["text"])
            alone = []
            for request in requests:
                one = self.ressa.json("generate", "--model", self.model, "--image", request["image"], "--prompt", request["prompt"], *options, "--json")
                alone.append((one[0] if isinstance(one, list) else one)["tokens"])
            self.report.equal(self.name, f"generate one at a time: {mode}", alone, golden["tokens"])

    def export(self):
        target = self.ressa.folder / "exported"
        shutil.rmtree(target, ignore_errors=True)
        self.ressa.run("export", "--model", self.model, "--output", target)
        differing = []
        for path in sorted(self.model.rglob("*")):
            if path.is_file():
                twin = target / path.relative_to(self.model)
                if not twin.is_file() or twin.read_bytes() != path.read_bytes():
                    differing.append(str(path.relative_to(self.model)))
        self.report.line(self.name, "export: the same bytes", not differing, ", ".join(differing) or "every file")


def option(key, value):
    """An option of `generate` for an entry of transformers' generation configuration."""
    if isinstance(value, bool):
        return [f"--{key.replace('_', '-')}"] if value else []
    return [f"--{key.replace('_', '-')}", str(value)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("goldens", type=Path)
    parser.add_argument("--ressa", default=Path(__file__).parent.parent / "target/release/ressa", type=Path)
    parser.add_argument("--only", default="", help="only cases whose name contains this text")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    report = Report(options.verbose)
    seeds = sorted(path for path in [options.goldens, *options.goldens.iterdir()] if (path / "models").is_dir() and (path / "golden").is_dir())
    with tempfile.TemporaryDirectory() as folder:
        ressa = Ressa(str(options.ressa.resolve()), Path(folder))
        for seed in seeds:
            for model in sorted((seed / "models").iterdir()):
                name = f"{seed.name}/{model.name}"
                golden = seed / "golden" / model.name.split("--")[0]
                if options.only in name and (golden / "golden.json").exists():
                    Case(name, model, golden, seed / "images", ressa, report).check()
    print(f"\n{report.passed} ok, {report.failed} failed")
    return 0 if report.failed == 0 and report.passed > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
