#!/usr/bin/env python3
"""The part of a model folder that its connector's training changed, as a small file of bf16 tensors.

    scripts/real/connector.py TRAINED UNTRAINED OUTPUT [--note KEY=TEXT ...]

TRAINED is what `ressa export` wrote of the training's run, UNTRAINED the folder that the training read. The file is what
experiments/real/connectors/ ships and scripts/real/assemble.py puts into a folder.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np  # noqa: E402

from folder import narrowed, read_tensors, write_tensors  # noqa: E402

LARGEST = 8_000_000
CONNECTS = ("query_tokens", "qformer.", "language_projection.", "multi_modal_projector.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path)
    parser.add_argument("untrained", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--note", action="append", default=[], metavar="KEY=TEXT", help="kept in the file's header")
    options = parser.parse_args()
    trained, untrained = (read_tensors(folder / "model.safetensors") for folder in (options.trained, options.untrained))
    changed = {name: tensor for name, tensor in trained.items() if not np.array_equal(tensor, untrained[name])}
    if beyond := [name for name in changed if not name.startswith(CONNECTS)]:
        sys.exit(f"connector: `{beyond[0]}` changed and is no part of a connector; is {options.trained} an export of its training?")
    if not changed:
        sys.exit("connector: nothing changed; the two folders are the same model")
    size = sum(tensor.size * 2 for tensor in changed.values())
    if size > LARGEST:
        sys.exit(f"connector: {size / 1e6:.1f} MB are more than the {LARGEST / 1e6:.1f} MB that may be shipped; train fewer matrices")
    notes = dict(note.split("=", 1) for note in options.note)
    certificate = options.trained / "ressa_certificate.json"
    if certificate.is_file():
        notes["certificate"] = json.dumps(json.loads(certificate.read_text()), separators=(",", ":"))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_tensors(options.output, {name: narrowed(tensor) for name, tensor in changed.items()}, notes)
    print(f"{options.output}: {len(changed)} tensors, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
