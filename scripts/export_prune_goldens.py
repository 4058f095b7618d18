#!/usr/bin/env python3
"""Writes the golden files of crates/prune: small layers, and what the published pruning algorithms make of them.

Usage: python3 scripts/export_prune_goldens.py [OUTPUT] [--seed N]   (needs torch and safetensors; default crates/prune/tests/goldens)

The algorithms are written here from the papers, as literally as they can be and in f64: full sorts, one column after the other, Cholesky, inverse, Cholesky.
A case is `W` [out, in], `X` [samples, tokens, in], `stat.*`, `wanda_score`, and per method `mask.<method>` (1 = kept), for SparseGPT at 50 % and 2:4 also `weight.<method>`,
and `rows.<method>` where only some rows are to be compared: not those in which rounding could decide (scores that compete are less than TIE apart, an
error is within MARGIN of its threshold or of zero), nor those in which the published rule runs out of candidates. Methods are named `<metric>_<percent pruned | n:m pruned>[_<variant>]`; options stand in the JSON beside.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
# rows, columns, samples, tokens; every size differs from every other it could be confused with
CASES = {
    "even": dict(shape=(11, 48), samples=5, tokens=17),
    "odd": dict(shape=(7, 70), samples=4, tokens=29),
    "blocks": dict(shape=(5, 144), samples=3, tokens=50),
    "uneven": dict(shape=(13, 40), samples=4, tokens=19, dead=(3, 17, 18), zero_row=5, twin_rows=(2, 9)),
    "short": dict(shape=(6, 56), samples=2, tokens=11),
}
MARGIN = 1e-4  # of errors, which are sums of numbers around 0.1
TIE = 1e-5  # relative; f32 statistics are right to about 1e-6


def layer(shape, samples, tokens, dead=(), zero_row=None, twin_rows=None):
    """A weight whose columns differ in size, inputs that are correlated, shifted and of very different norms."""
    rows, columns = shape
    mix = torch.randn(columns, columns) / columns**0.5 + torch.eye(columns)
    scale = torch.exp(torch.randn(columns) * 0.8)
    x = (torch.randn(samples, tokens, columns) @ mix) * scale + torch.randn(columns) * 0.3 * scale
    x += torch.randn(samples, 1, columns) * 0.4
    x[..., list(dead)] = 0
    x = x.half().float()  # stored in half the space
    w = torch.randn(rows, columns) * (0.3 + torch.rand(columns)) / columns**0.5
    if zero_row is not None:
        w[zero_row] = 0
    if twin_rows is not None:
        w[twin_rows[1]] = w[twin_rows[0]]
    return w, x


def statistics(x):
    """Column statistics as DSnoT's reference defines them: squares and sums per sample, variances within samples, weighted by tokens."""
    x = x.double()
    samples = x.shape[0]
    flat = x.flatten(0, 1)
    return dict(
        sqnorm=flat.square().sum(0) / samples,
        sum=flat.sum(0) / samples,
        var=torch.stack([s.var(0, unbiased=False) for s in x]).mean(0),
        hessian=2 / samples * flat.T @ flat,
    )


def keep_smallest_out(score, count):
    """Per row: the first `count` of a stable ascending sort go."""
    order = torch.sort(score, dim=1, stable=True).indices
    keep = torch.ones_like(score, dtype=torch.bool)
    return keep.scatter(1, order[:, :count], False)


def keep_n_of_m(score, n, m):
    grouped = score.unflatten(1, (-1, m))
    return keep_smallest_out(grouped.flatten(0, 1), n).view_as(score)


def select(score, amount, group):
    if isinstance(amount, tuple):
        return keep_n_of_m(score, *amount)
    if group == "row":
        return keep_smallest_out(score, int(score.shape[1] * amount))
    return keep_smallest_out(score.reshape(1, -1), int(score.numel() * amount)).view_as(score)


def ria(w, s):
    size = w.abs()
    return (size / size.sum(0, keepdim=True).clamp_min(1e-300) + size / size.sum(1, keepdim=True).clamp_min(1e-300)) * s["sqnorm"].sqrt() ** 0.5


def sparsegpt(w, s, amount, damping, block=128):
    """Returns mask, weights and how close the closest decision was."""
    w, h = w.double().clone(), s["hessian"].clone()
    dead = h.diagonal() == 0
    h.diagonal()[dead] = 1
    w[:, dead] = 0
    step = 0.01 * h.diagonal().mean()
    if damping == "always":
        h.diagonal().add_(step)
    while torch.linalg.cholesky_ex(h).info > 0:
        h.diagonal().add_(step)
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h)), upper=True)
    keep = torch.ones_like(w, dtype=torch.bool)
    closest = float("inf")
    for start in range(0, w.shape[1], block):
        end = min(start + block, w.shape[1])
        part, errors, d = w[:, start:end].clone(), torch.zeros(w.shape[0], end - start, dtype=w.dtype), u.diagonal()[start:end]
        if not isinstance(amount, tuple):
            saliency = (part / d).square()
            ranked = saliency.flatten().sort().values
            at = int(saliency.numel() * amount)
            keep[:, start:end] = saliency > ranked[at]
            if at + 1 < len(ranked):
                closest = min(closest, float((ranked[at + 1] - ranked[at]) / ranked[at + 1]))
        for i in range(end - start):
            if isinstance(amount, tuple) and (start + i) % amount[1] == 0:
                n, m = amount
                saliency = (part[:, i : i + m] / d[i : i + m]).square()
                keep[:, start + i : start + i + m] = keep_smallest_out(saliency, n)
                ranked = saliency.sort(dim=1).values
                apart = (ranked[:, n] - ranked[:, n - 1]) / ranked[:, n].clamp_min(1e-300)
                closest = min([closest, *apart[ranked[:, n] > 0].tolist()])
            gone = torch.where(keep[:, start + i], 0.0, part[:, i])
            errors[:, i] = gone / u[start + i, start + i]
            part[:, i] -= gone
            part[:, i + 1 :] -= errors[:, i : i + 1] * u[start + i, start + i + 1 : end]
        w[:, start:end] = part
        w[:, end:] -= errors @ u[start:end, end:]
    return keep, w, closest


def rose_order(w, s, amount, block):
    """The columns in the order of their losses where those of blocks are unlike enough, and how close the closest decision was."""
    h = s["hessian"]
    w = torch.where(h.diagonal() == 0, 0.0, w.double())
    score = w.abs() * h.diagonal().sqrt()
    width = amount[1] if isinstance(amount, tuple) else block
    blocks = [(at, min(at + width, w.shape[1])) for at in range(0, w.shape[1], width)]
    lost = torch.zeros(w.shape[1], dtype=torch.float64)
    for start, end in blocks:
        part = score[:, start:end]
        if isinstance(amount, tuple):
            keep = keep_smallest_out(part, amount[0])
        else:
            count = int(w.shape[0] * end * amount) - int(w.shape[0] * start * amount)
            keep = keep_smallest_out(part.reshape(1, -1), count).view_as(part)
        lost[start:end] = part.masked_fill(keep, 0).sum(0)
    of_blocks = torch.stack([lost[start:end].sum() for start, end in blocks])
    spread = float((of_blocks.max() - of_blocks.min()) / of_blocks.max())
    near = lambda values: float((values.sort().values.diff() / values.sort().values[1:].clamp_min(1e-300)).min()) if len(values) > 1 else 1.0
    closest = min(abs(spread - 0.5), near(of_blocks))
    if spread <= 0.5:
        return torch.arange(w.shape[1]), closest
    order = []
    for at in of_blocks.argsort(descending=True, stable=True).tolist():
        start, end = blocks[at]
        columns = torch.arange(start, end)
        if not isinstance(amount, tuple):
            closest = min(closest, near(lost[start:end]))
            columns = columns[lost[start:end].argsort(descending=True, stable=True)]
        order.append(columns)
    return torch.cat(order), closest


def rose(w, s, amount, block):
    order, apart = rose_order(w, s, amount, block)
    keep, pruned, closest = sparsegpt(w[:, order], dict(hessian=s["hessian"][order][:, order]), amount, "always", block)
    back = order.argsort()
    return keep[:, back], pruned[:, back], min(apart, closest), bool((order != torch.arange(len(order))).any())


def alps(w, s, amount, noise=0.0, rho=0.1, most=300, steps=10):
    """Rows of scaled weights; `noise`, a share of the largest value, is added in every iteration, as rounding in f32 is."""
    g = s["hessian"].clone()
    g.diagonal().add_(0.01 * g.diagonal().mean())
    generator = torch.Generator().manual_seed(round(noise * 1e9))
    scale = g.diagonal().sqrt()
    g = g / scale / scale[:, None]
    dense = w.double() * scale
    target = dense @ g
    values, vectors = torch.linalg.eigh(g)
    inverse = lambda: (vectors / (values + rho)) @ vectors.T
    first = seen = select(dense.abs(), amount, "matrix")
    kept = int(first.sum())
    b, d, v, inv, moved = dense, dense * first, torch.zeros_like(dense), inverse(), False
    for at in range(most):
        b = (target - v + rho * d) @ inv
        b = b + noise * b.abs().max() * torch.randn(b.shape, generator=generator, dtype=b.dtype)
        shifted = b + v / rho
        keep = select(shifted.abs(), amount, "matrix")
        d = shifted * keep
        v = v + rho * (b - d)
        if (at + 1) % 3:
            continue
        changes = int((keep != seen).sum())
        seen = keep
        if changes / kept > 0.1:
            moved, rho = True, rho * 1.3
        elif changes / kept > 0.005:
            moved, rho = True, rho * 1.2
        elif moved:
            if changes == 0:
                break
            rho *= 1.1
        else:
            rho /= 5
            if changes:
                d, v = dense * first, torch.zeros_like(dense)
        if at >= 30 and changes / kept < 0.0003:
            break
        inv = inverse()
    keep = select(b.abs(), amount, "matrix")
    b = b * keep
    r = (target - b @ g) * keep
    p, size = r, r.square().sum(1, keepdim=True)
    for _ in range(steps):
        q = (p @ g) * keep
        step = size / (p * q).sum(1, keepdim=True).clamp_min(1e-300)
        b, r = b + step * p, r - step * q
        size, before = r.square().sum(1, keepdim=True), size
        p = r + size / before.clamp_min(1e-300) * p
    return keep, b / scale


def dsnot(w, s, keep, importance, group, cycles, threshold, same_sign):
    """One row after the other. Returns the mask and the rows in which neither rounding nor a lack of candidates decides."""
    w, keep = w.double(), keep.clone()
    contribution = w * s["sum"]
    wanda = w.abs() * s["sqnorm"].sqrt()
    clear = torch.ones(w.shape[0], dtype=torch.bool)
    near = lambda a, b: abs(a - b) <= TIE * max(abs(a), abs(b))
    for row in range(w.shape[0]):
        d = contribution[row]
        if gap(importance[row : row + 1], keep[row : row + 1], (group // 2, group) if group else 0.5, "row") <= TIE:
            clear[row] = False
        pruned, kept = [j for j in range(len(d)) if not keep[row, j]], [j for j in range(len(d)) if keep[row, j]]
        error = float(d[pruned].sum())
        sign = (error > 0) - (error < 0)
        score = {j: float(d[j] / s["var"][j]) for j in pruned if d[j] != 0}
        ranked = sorted(score, key=lambda j: (score[j], j))
        back = {True: [j for j in reversed(ranked) if d[j] > 0], False: [j for j in ranked if d[j] < 0]}
        by_wanda = sorted(kept, key=lambda j: (float(wanda[row, j]), j))
        gone = {True: [j for j in by_wanda if d[j] > 0], False: [j for j in by_wanda if d[j] < 0]}
        tried = set()
        for _ in range(cycles):
            if abs(abs(error) - threshold) < MARGIN:
                clear[row] = False
            if abs(error) <= threshold:
                break
            if not back[error > 0]:
                clear[row] = False
                break
            waiting = back[error > 0]
            grow = waiting.pop(0)
            if waiting and near(score[grow], score[waiting[0]]):
                clear[row] = False
            if group:
                start = grow // group * group
                free = [j for j in kept if start <= j < start + group and j not in tried]
                free.sort(key=lambda j: (float(importance[row, j]), j))
                drop = free[0] if free else None
                if len(free) > 1 and near(float(importance[row, free[0]]), float(importance[row, free[1]])):
                    clear[row] = False
                tried.add(drop)
            else:
                waiting = gone[error < 0]
                drop = waiting.pop(0) if waiting else None
                if waiting and near(float(wanda[row, drop]), float(wanda[row, waiting[0]])):
                    clear[row] = False
            if drop is None:
                clear[row] = False
                break
            after = error + float(d[drop]) - float(d[grow])
            if abs(after) < MARGIN:
                clear[row] = False
            if (same_sign or group) and ((after > 0) - (after < 0)) != sign:
                break
            keep[row, grow], keep[row, drop] = True, False
            error = after
    return keep, clear


def gap(score, keep, amount, group):
    """Relative distance between the least important kept and the most important pruned weight, where they compete."""
    if isinstance(amount, tuple):
        score, keep = (t.unflatten(1, (-1, amount[1])).flatten(0, 1) for t in (score, keep))
    elif group == "matrix":
        score, keep = score.reshape(1, -1), keep.reshape(1, -1)
    low = score.masked_fill(~keep, float("inf")).min(1).values
    high = score.masked_fill(keep, 0).max(1).values
    clear = low > 0
    return float(((low - high) / low)[clear].min()) if clear.any() else 1.0


def export(name, case):
    w, x = layer(**case)
    s = statistics(x)
    tensors = {"W": w, "X": x.half(), **{f"stat.{k}": s[k].float() for k in ("sqnorm", "sum", "var")}}
    wanda = w.double().abs() * s["sqnorm"].sqrt()
    tensors["wanda_score"] = wanda.float()
    methods = {}
    amounts = {"50": 0.5, "60": 0.6, "70": 0.7, "2:4": (2, 4), "4:8": (4, 8), "1:4": (1, 4)}
    amounts = {k: a for k, a in amounts.items() if not isinstance(a, tuple) or w.shape[1] % a[1] == 0}

    def output_error(pruned):
        dense = x.double() @ w.double().T
        return float((x.double() @ pruned.double().T - dense).norm() / dense.norm())

    def put(method, keep, pruned=None, rows=None, **options):
        tensors[f"mask.{method}"] = keep.to(torch.uint8)
        if pruned is not None and ("_50" in method or "2:4" in method):
            tensors[f"weight.{method}"] = pruned.float()
        if rows is not None:
            tensors[f"rows.{method}"] = rows.to(torch.uint8)
        methods[method] = dict(dropped=int((~keep).sum()), output_error=output_error(w * keep if pruned is None else pruned), **options)

    for label, amount in amounts.items():
        for metric, score, group in (("magnitude", w.double().abs(), "matrix"), ("wanda", wanda, "row"), ("ria", ria(w.double(), s), "row")):
            keep = select(score, amount, group)
            put(f"{metric}_{label}", keep, compare="exact" if gap(score, keep, amount, group) > TIE else "loss")
        for damping in ("always", "on-failure"):
            if damping == "on-failure" and x.shape[0] * x.shape[1] < 1.5 * w.shape[1]:
                continue
            keep, pruned, closest = sparsegpt(w, s, amount, damping)
            exact = closest > 1e-4 and x.shape[0] * x.shape[1] >= w.shape[1]
            put(f"sparsegpt_{label}_damp-{damping}", keep, pruned, compare="exact" if exact else "loss")
        if x.shape[0] * x.shape[1] >= w.shape[1]:
            block = 16
            keep, pruned, closest, moved = rose(w, s, amount, block)
            if moved:
                put(f"sparsegpt_{label}_rose", keep, pruned, compare="exact" if closest > 1e-4 else "loss", block=block)
        if label in ("50", "60", "70", "2:4") and not case.get("dead"):
            keep, pruned = alps(w, s, amount)
            sure = all(torch.equal(alps(w, s, amount, noise)[0], keep) for noise in (1e-6, 1.1e-6, 1.2e-6, 3e-6, 5e-6))
            put(f"alps_{label}", keep, pruned, compare="exact" if sure else "loss")
        if label in ("50", "60", "2:4"):
            for same_sign in (False, True)[: 1 if isinstance(amount, tuple) else 2]:
                options = dict(max_cycle=w.shape[1] // 6, threshold=0.1)
                group = amount[1] if isinstance(amount, tuple) else None
                keep, rows = dsnot(w, s, select(wanda, amount, "row"), wanda, group, options["max_cycle"], options["threshold"], same_sign)
                put(f"dsnot_{label}" + ("_same-sign" if same_sign else ""), keep, rows=rows, **options)
    return tensors, dict(case=name, methods=methods)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", nargs="?", type=Path, default=ROOT / "crates/prune/tests/goldens")
    parser.add_argument("--seed", type=int, default=2404)
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    for at, (name, case) in enumerate(CASES.items()):
        torch.manual_seed(arguments.seed + at)
        tensors, about = export(name, case)
        save_file({k: t.contiguous() for k, t in tensors.items()}, arguments.output / f"{name}.safetensors")
        (arguments.output / f"{name}.json").write_text(json.dumps(about) + "\n")
        clear = {k: f"{int(t.sum())}/{len(t)}" for k, t in tensors.items() if k.startswith("rows.")}
        loss = [k for k, m in about["methods"].items() if m.get("compare") == "loss"]
        print(name, len(about["methods"]), "methods; clear rows", clear, "; compared by loss", loss)


if __name__ == "__main__":
    main()
