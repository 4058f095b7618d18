#!/usr/bin/env python3
"""The dense tensors of a model folder whose linears are stored without their zeros (crates/checkpoint/CONTAINERS.md).

    scripts/read_container.py FOLDER --output model.safetensors     write them into one dense file
    scripts/read_container.py FOLDER --compare DENSE                exit code 1 where a bit differs from a dense folder's

From Python: `state = tensors("FOLDER")`. Dense folders are read, too. Needs torch and safetensors.
"""

import argparse
import hashlib
import json
import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file

PARTS = (".compressed", ".bitmask", ".shape", ".row_offsets")


def unpack(values, bitmask, shape):
    """A matrix from its values, in the order of rows, and a bit for each of its places, the lowest bit of a byte first."""
    rows, columns = shape.flatten().tolist()
    places = bitmask.reshape(rows, -1, 1).bitwise_right_shift(torch.arange(8, dtype=torch.uint8)).bitwise_and(1)
    places = places.reshape(rows, -1)[:, :columns].bool()
    if int(places.sum()) != values.numel():
        raise ValueError(f"{values.numel()} values for {int(places.sum())} places")
    dense = torch.zeros(rows, columns, dtype=values.dtype)
    dense[places] = values.flatten()
    return dense


def tensors(folder):
    """Every tensor of a folder by its dense name; files are compared with the digests of the folder's certificate."""
    folder = pathlib.Path(folder)
    index, certificate = folder / "model.safetensors.index.json", folder / "ressa_certificate.json"
    names = ["model.safetensors"]
    if not (folder / names[0]).exists():
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    claims = json.loads(certificate.read_text()).get("container") if certificate.exists() else None
    dense = {}
    for name in names:
        digest = claims and claims["sha256"].get(name)
        if digest and hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
            raise ValueError(f"`{folder / name}` is not the file of the certificate")
        stored = load_file(folder / name)
        packed = [key.removesuffix(PARTS[0]) for key in stored if key.endswith(PARTS[0])]
        for module in packed:
            values, bitmask, shape, _ = (stored.pop(module + part, None) for part in PARTS)
            dense[module + ".weight"] = unpack(values, bitmask, shape)
        dense.update(stored)
    return dense


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--output")
    parser.add_argument("--compare")
    options = parser.parse_args()
    found = tensors(options.folder)
    print(f"{len(found)} tensors, {sum(t.numel() * t.element_size() for t in found.values())} bytes dense")
    if options.output:
        save_file(found, options.output, metadata={"format": "pt"})
    if options.compare:
        other, bits = tensors(options.compare), lambda t: (t.dtype, t.shape, t.contiguous().reshape(-1).view(torch.uint8).tolist())
        wrong = sorted(n for n in found.keys() | other.keys() if n not in found or n not in other or bits(found[n]) != bits(other[n]))
        print(f"{len(wrong)} differ {wrong[:3]}")
        return 1 if wrong else 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
