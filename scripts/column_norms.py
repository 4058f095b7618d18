#!/usr/bin/env python3
"""How uneven the inputs of a model's matrices are: what Wanda and its kin see, and magnitude does not.

    ressa --results FOLDER sweep EXPERIMENT prune.metric=wanda prune.calibration.propagate=dense -E 'kind = statistics'
    scripts/column_norms.py FOLDER ...

Reads the statistics stages of results folders: per matrix, the norm of each input channel over the calibration tokens. Wanda orders weights by
|w| * norm, so the input matters as far as ln(norm) spreads beside ln|w|, whose standard deviation is 1.11 for Gaussian weights.

  spread    standard deviation of ln(norm) over the channels of a matrix: the median matrix, and the most uneven one
  largest   largest norm over the median norm: the median matrix, and the most uneven one
  outliers  share of all channels whose norm is more than six times the median of their matrix
"""

import array
import json
import math
import statistics
import struct
import sys
from pathlib import Path


def squares(path):
    """Sums of squares of each matrix of a block."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        for name, tensor in sorted(header.items()):
            if name.endswith(".squares"):
                begin, end = tensor["data_offsets"]
                file.seek(8 + length + begin)
                values = array.array("d", file.read(end - begin))
                if sys.byteorder == "big":
                    values.byteswap()
                yield values


def matrices(results):
    """`(model, tower)` with the norms of a matrix's input channels. Channels that are always 0 have no logarithm and decide nothing."""
    manifests = {path.parent.name: json.loads(path.read_text()) for path in Path(results, "store").glob("*/*/manifest.json")}
    for key, manifest in sorted(manifests.items()):
        if manifest["kind"] != "statistics":
            continue
        dense = manifests.get(manifest["inputs"].get("dense"), {"configuration": {}})["configuration"]
        model = dense.get("preset") or Path(dense.get("checkpoint") or "?").name
        for block in sorted(name for name in manifest["files"] if name.startswith("block-")):
            for values in squares(Path(results, "store", key[:2], key, block)):
                norms = [math.sqrt(value) for value in values if value > 0]
                if len(norms) > 1:
                    yield (model, manifest["configuration"]["tower"]), norms


def main():
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        sys.exit(__doc__)
    found = {}
    for results in sys.argv[1:]:
        for key, norms in matrices(results):
            found.setdefault(key, []).append(norms)
    if not found:
        sys.exit("no statistics stage in these folders; the first lines of --help say how to make some")
    print(f"{'model':<28} {'tower':<10} {'matrices':>8} {'spread':>14} {'largest':>16} {'outliers':>9}")
    for (model, tower), lists in sorted(found.items()):
        spreads = [statistics.pstdev(map(math.log, norms)) for norms in lists]
        middles = [statistics.median(norms) for norms in lists]
        largest = [max(norms) / middle for norms, middle in zip(lists, middles)]
        outliers = sum(norm > 6 * middle for norms, middle in zip(lists, middles) for norm in norms)
        share = outliers / sum(map(len, lists))
        pair = lambda values, digits: f"{statistics.median(values):.{digits}f}, {max(values):.{digits}f}"
        print(f"{model:<28} {tower:<10} {len(lists):>8} {pair(spreads, 2):>14} {pair(largest, 1):>16} {100 * share:>7.2f} %")


if __name__ == "__main__":
    main()
