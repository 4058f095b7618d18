#!/usr/bin/env python3
"""Compares the pruning methods of ressa with plain PyTorch ones on one FlanT5-XL encoder block: `make bench`.

The other side is written as the methods' own repositories write them: statistics per linear and per sample, a full sort of every row for Wanda, a Python loop over
groups for N:M, Cholesky, inverse, Cholesky and a Python loop over columns for SparseGPT, whole-matrix sorts and gathers for DSnoT, one swap of all rows at a time
for SparseSwaps (`swaps`, from Wanda's mask; nothing is published, so this is its formula in tensor operations). Same libtorch, same number of threads, same weights
and inputs (drawn from the same seed); both sides are run in turns and the median of the ratios is printed.

    scripts/bench_pruning.py [--threads N] [--rounds N] [--samples N] [--methods wanda-50 wanda-2:4 ...]   (needs torch; builds the Rust side)
"""

import argparse
import json
import os
import statistics as stats
import subprocess
import sys
import time
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
TOKENS = 96
LOOKED_AT = 8  # samples on which errors are measured
BLOCK = [(2048, [2048] * 3), (2048, [2048]), (2048, [5120] * 2), (5120, [2048])]
GOALS = {"wanda-50": 1.5, "wanda-2:4": 10, "sparsegpt-50": 3, "sparsegpt-2:4": 3, "dsnot-50": 5, "dsnot-2:4": 5, "swaps-50": 2, "swaps-2:4": 2}


class Statistics:
    """What a hook on one linear collects; `kind` is the method."""

    def __init__(self, width, kind):
        self.kind, self.samples, self.tokens = kind, 0, 0
        self.square, self.total, self.var = torch.zeros(width), torch.zeros(width), torch.zeros(width)
        self.hessian = torch.zeros(width, width) if kind in ("sparsegpt", "swaps") else None

    def add(self, x):
        columns = x.reshape(-1, x.shape[-1]).t()
        share = self.samples / (self.samples + 1)
        self.samples += 1
        if self.hessian is not None:
            self.hessian *= share
            columns = (2 / self.samples) ** 0.5 * columns.float()
            self.hessian += columns.matmul(columns.t())
            self.square = self.hessian.diagonal() / 2
            return
        if self.kind == "dsnot":
            here = columns.shape[1]
            self.var = (self.var * self.tokens + torch.var(columns, dim=1, unbiased=False) * here) / (self.tokens + here)
            self.tokens += here
            self.total = self.total * share + columns.sum(dim=1) / self.samples
        self.square = self.square * share + torch.norm(columns, p=2, dim=1) ** 2 / self.samples


def n_of_m_loop(score, n, m):
    pruned = torch.zeros_like(score, dtype=torch.bool)
    for start in range(0, score.shape[1], m):
        pruned.scatter_(1, start + torch.topk(score[:, start : start + m], n, dim=1, largest=False)[1], True)
    return pruned


def wanda(weight, seen, pattern):
    score = weight.abs() * seen.square.sqrt().reshape(1, -1)
    if isinstance(pattern, tuple):
        pruned = n_of_m_loop(score, *pattern)
    else:
        order = torch.sort(score, dim=-1, stable=True)[1]
        pruned = torch.zeros_like(score, dtype=torch.bool)
        pruned.scatter_(1, order[:, : int(score.shape[1] * pattern)], True)
    weight[pruned] = 0
    return ~pruned


def sparsegpt(weight, seen, pattern, block=128):
    h, columns = seen.hessian, weight.shape[1]
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1
    weight[:, dead] = 0
    h.diagonal().add_(0.01 * h.diagonal().mean())
    factor = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    for start in range(0, columns, block):
        end = min(start + block, columns)
        part = weight[:, start:end].clone()
        kept, errors = torch.zeros_like(part), torch.zeros_like(part)
        u = factor[start:end, start:end]
        if isinstance(pattern, tuple):
            pruned = torch.zeros_like(part, dtype=torch.bool)
        else:
            saliency = part**2 / u.diagonal().reshape(1, -1) ** 2
            pruned = saliency <= torch.sort(saliency.flatten())[0][int(saliency.numel() * pattern)]
        for i in range(end - start):
            column, pivot = part[:, i], u[i, i]
            if isinstance(pattern, tuple) and i % pattern[1] == 0:
                saliency = part[:, i : i + pattern[1]] ** 2 / u.diagonal()[i : i + pattern[1]].reshape(1, -1) ** 2
                pruned.scatter_(1, i + torch.topk(saliency, pattern[0], dim=1, largest=False)[1], True)
            value = column.clone()
            value[pruned[:, i]] = 0
            kept[:, i] = value
            error = (column - value) / pivot
            part[:, i:] -= error.unsqueeze(1).matmul(u[i, i:].unsqueeze(0))
            errors[:, i] = error
        weight[:, start:end] = kept
        weight[:, end:] -= errors.matmul(factor[start:end, end:])
    return weight != 0


def swaps(weight, seen, pattern, most=100, candidates=32, rows=256):
    dense, gram, columns = weight.clone(), seen.hessian, weight.shape[1]
    keep = wanda(weight, seen, pattern)
    diagonal = gram.diagonal()
    grouped = isinstance(pattern, tuple)
    if grouped:
        m = pattern[1]
        corners = gram.view(columns // m, m, columns // m, m).diagonal(0, 0, 2).permute(2, 0, 1)
    for start in range(0, weight.shape[0], rows):
        w, mask = dense[start : start + rows], keep[start : start + rows]
        missing = torch.where(mask, 0.0, w)
        product = missing @ gram
        least = -1e-6 * (missing * product).sum(dim=1, keepdim=True)
        active = torch.ones_like(least, dtype=torch.bool)
        for _ in range(most):
            back = (w * (w * diagonal - 2 * product)).masked_fill(mask, float("inf"))
            gone = (w * (w * diagonal + 2 * product)).masked_fill(~mask, float("inf"))
            if grouped:
                sides = [t.view(len(w), -1, m) for t in (back, gone, w)]
                change = sides[0].unsqueeze(3) + sides[1].unsqueeze(2) - 2 * sides[2].unsqueeze(3) * sides[2].unsqueeze(2) * corners
                change, at = change.reshape(len(w), -1).min(dim=1, keepdim=True)
                first = at // (m * m) * m
                p, u = first + at % (m * m) // m, first + at % m
            else:
                (a, p), (b, u) = back.topk(candidates, largest=False), gone.topk(candidates, largest=False)
                shared = gram[p.unsqueeze(2), u.unsqueeze(1)]
                change = a.unsqueeze(2) + b.unsqueeze(1) - 2 * w.gather(1, p).unsqueeze(2) * w.gather(1, u).unsqueeze(1) * shared
                change, at = change.reshape(len(w), -1).min(dim=1, keepdim=True)
                p, u = p.gather(1, at // candidates), u.gather(1, at % candidates)
            active &= change < least
            if not active.any():
                break
            product += active * (w.gather(1, u) * gram[u.squeeze(1)] - w.gather(1, p) * gram[p.squeeze(1)])
            mask.scatter_(1, p, mask.gather(1, p) | active)
            mask.scatter_(1, u, mask.gather(1, u) & ~active)
    weight.copy_(torch.where(keep, dense, 0.0))
    return keep


def signed_order(d):
    """Positions of negative entries in order, then of positive ones in reverse."""
    at = torch.arange(d.shape[1], dtype=torch.float64).repeat(d.shape[0], 1)
    negative, positive = at.clone(), at.clone()
    negative[d >= 0] = float("inf")
    positive[d <= 0] = float("inf")
    negative = torch.sort(negative, dim=1)[0]
    positive = torch.flip(torch.sort(positive, dim=1)[0], dims=[1])
    negative[negative == float("inf")] = 0
    positive[positive == float("inf")] = 0
    return (negative + positive).long()


def dsnot(weight, seen, pattern, cycles=50, threshold=0.1):
    d = weight * seen.total.reshape(1, -1)
    score = weight.abs() * seen.square.sqrt().reshape(1, -1)
    rows, columns = score.shape
    grouped = isinstance(pattern, tuple)
    if grouped:
        n, m = pattern
        pruned = torch.zeros_like(score, dtype=torch.bool)
        gone, left = [], []
        for start in range(0, columns, m):
            order = torch.sort(score[:, start : start + m], dim=1)[1] + start
            gone.append(order[:, :n])
            left.append(order[:, n:])
            pruned.scatter_(1, order[:, :n], True)
        gone, left = torch.cat(gone, 1), torch.cat(left, 1)
    else:
        order = torch.sort(score, dim=-1, stable=True)[1]
        gone, left = order.split([int(columns * pattern), columns - int(columns * pattern)], dim=1)
        pruned = torch.zeros_like(score, dtype=torch.bool).scatter_(1, gone, True)
    grow = d.clone().scatter_(1, left, 0)
    error = grow.sum(dim=1, keepdim=True)
    first = torch.sign(error)
    grow /= seen.var.reshape(1, -1)
    grow_order = torch.sort(grow, dim=1, stable=True)[1]
    score.scatter_(1, gone, float("inf"))
    if not grouped:
        drop_order = torch.sort(score, dim=1, stable=True)[1][:, : left.shape[1]]
        drop_order = torch.gather(drop_order, 1, signed_order(torch.gather(d, 1, drop_order)))
    ends = torch.tensor([[0, columns - 1]]).repeat(rows, 1)
    drop_ends = torch.tensor([[0, left.shape[1] - 1]]).repeat(rows, 1)
    step = torch.tensor([[1, -1]]).repeat(rows, 1)
    active = torch.ones(rows, 1, dtype=torch.bool)
    for _ in range(cycles):
        if not active.any():
            break
        side = (error > 0).long()
        at = torch.gather(ends, 1, side)
        back = torch.gather(grow_order, 1, at)
        ends.scatter_(1, side, at + step.gather(1, side))
        if grouped:
            start = back - back % m
            members = torch.arange(m).repeat(1, 1) + start
            out = start + torch.topk(torch.gather(score, 1, members), 1, dim=1, largest=False)[1]
            score.scatter_(1, out, float("inf"))
        else:
            side = (error < 0).long()
            at = torch.gather(drop_ends, 1, side)
            out = torch.gather(drop_order, 1, at)
            drop_ends.scatter_(1, side, at + step.gather(1, side))
        change = d.gather(1, out) - d.gather(1, back)
        active &= error.abs() > threshold
        if grouped:
            active &= first == torch.sign(error + change)
        pruned.scatter_(1, out, active)
        pruned.scatter_(1, back, ~active)
        error += torch.where(active, change, torch.zeros_like(change))
    weight[pruned] = 0
    return ~pruned


def plain(method, pattern, samples):
    """Seconds of the plain implementation, by part; a digest of each mask, and what pruning did to the layer's outputs."""
    prune = {"wanda": wanda, "sparsegpt": sparsegpt, "dsnot": dsnot, "swaps": swaps}[method]
    torch.manual_seed(0)
    seconds = dict(statistics=0.0, pruning=0.0, cpu=0.0, digests=[], errors=[])
    with torch.no_grad():
        for width, heights in BLOCK:
            x = torch.randn(samples, TOKENS, width) + torch.randn(width) * 0.5
            weights = [torch.randn(height, width) * 0.02 for height in heights]
            for weight in weights:
                dense = weight.clone()
                clock, cpu = time.perf_counter(), time.process_time()
                seen = Statistics(width, method)
                for sample in x:
                    seen.add(sample)
                seconds["statistics"] += time.perf_counter() - clock
                clock = time.perf_counter()
                keep = prune(weight, seen, pattern)
                seconds["pruning"] += time.perf_counter() - clock
                seconds["cpu"] += time.process_time() - cpu
                seconds["digests"].append(int((torch.arange(keep.numel()) % 1009 * keep.flatten()).sum()))
                outputs = [(x[:LOOKED_AT].reshape(-1, width) @ w.t()).square().sum(dtype=torch.float64) for w in (dense - weight, dense)]
                seconds["errors"].append(float(outputs[0] / outputs[1]))
                del seen
    return seconds


def ours(program, method, pattern, arguments):
    command = [program, method, pattern, str(arguments.threads), str(arguments.samples)]
    found = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"})
    return json.loads(found.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--methods", nargs="+", default=list(GOALS), metavar="METHOD-PATTERN")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    build = ["cargo", "build", "--release", "--quiet", "--workspace", "--example", "pruning_speed"]
    if subprocess.run(build, cwd=ROOT).returncode != 0:
        sys.exit("the Rust side does not build")
    program = TARGET / "release" / "examples" / "pruning_speed"
    print(f"one FlanT5-XL encoder block, {arguments.samples} samples of {TOKENS} tokens, {arguments.threads} thread(s); seconds (statistics + pruning)")
    seconds = {}
    for name in arguments.methods:
        method, pattern = name.split("-")
        reference_pattern = tuple(map(int, pattern.split(":"))) if ":" in pattern else float(pattern) / 100
        pairs = []
        for _ in range(arguments.rounds):
            pairs.append((plain(method, reference_pattern, arguments.samples), ours(program, method, pattern, arguments)))
        wall = stats.median((p["statistics"] + p["pruning"]) / (o["statistics"] + o["pruning"]) for p, o in pairs)
        cpu = stats.median(p["cpu"] / o["cpu"] for p, o in pairs)
        seconds[name] = stats.median(o["statistics"] + o["pruning"] for _, o in pairs)
        p, o = pairs[-1]
        same = sum(a == b for a, b in zip(p["digests"], o["digests"]))
        worse = max(b / a for a, b in zip(p["errors"], o["errors"]))
        print(
            f"  {name:<14} plain {p['statistics']:7.2f} + {p['pruning']:7.2f}   ressa {o['statistics']:6.2f} + {o['pruning']:6.2f}"
            f"   {wall:6.2f} x wall, {cpu:6.2f} x CPU   goal {GOALS.get(name, 1)} x   {same} of {len(p['digests'])} masks equal, output error at most {worse:.4f} x",
            flush=True,
        )
    for pattern in ("50", "2:4"):
        if {f"swaps-{pattern}", f"sparsegpt-{pattern}"} <= seconds.keys():
            print(f"  Wanda with SparseSwaps at {pattern}: {seconds[f'swaps-{pattern}'] / seconds[f'sparsegpt-{pattern}']:.2f} x the seconds of SparseGPT")


if __name__ == "__main__":
    main()
