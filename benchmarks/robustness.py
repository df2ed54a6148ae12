"""The cost of a watermark, and the attacks that it survives, on Fashion-MNIST in three frameworks.

python benchmarks/robustness.py --data /usr/share/datasets/fashion-mnist --seeds 3

Every row is a mean over seeds with the worst in brackets; the twin is the same run without the callback.
"""

import argparse
import copy
import dataclasses
import functools
import os
import statistics
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"  # so that one set of attacks serves all three

import fashion
import numpy as np
import torch
import training
from torch import nn

import wmplug

Attack = Callable[[nn.Module, fashion.Fashion, int], nn.Module]


def fine_tuned(model: nn.Module, data: fashion.Fashion, seed: int) -> nn.Module:
    """All layers, 10 epochs on 4,000 other labelled images, at the learning rate of the training."""
    return fashion.fit(model, fashion.loader(data.other, seed + 100), 10)


def last_layer(model: nn.Module, data: fashion.Fashion, seed: int) -> nn.Module:
    """The last layer made anew and trained for 10 epochs on the 4,000 images."""
    torch.manual_seed(seed + 200)
    # Found by their ten outputs: Keras keeps the parameters of all layers in one module.
    weights = [p for p in model.parameters() if 10 in (p.shape[0], p.shape[-1])]
    with torch.no_grad():
        for weight in weights:
            weight.copy_(torch.empty_like(weight).uniform_(-0.1, 0.1))
    return fashion.fit(model, fashion.loader(data.other, seed + 200), 10, only=weights)


def pruned(model: nn.Module, data: fashion.Fashion, seed: int) -> nn.Module:
    """The smallest 75 % of all weights set to zero."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    limit = torch.cat([w.detach().abs().flatten() for w in weights]).kthvalue(
        int(0.75 * sum(w.numel() for w in weights))
    )[0]
    with torch.no_grad():
        for weight in weights:
            weight.mul_(weight.abs() > limit)
    return model


def int8(model: nn.Module, data: fashion.Fashion, seed: int) -> nn.Module:
    """Weights rounded to 8 bits, symmetric, one scale a tensor."""
    with torch.no_grad():
        for weight in (p for p in model.parameters() if p.ndim > 1):
            scale = weight.abs().max() / 127
            weight.copy_((weight / scale).round().clamp(-127, 127) * scale)
    return model


ATTACKS: dict[str, Attack] = {
    "fine-tuned, 4k images, 10 epochs": fine_tuned,
    "last layer retrained": last_layer,
    "75 % of weights pruned": pruned,
    "int8 weights": int8,
}


def accuracy(model: nn.Module, data: fashion.Fashion) -> float:
    x, y = fashion.tensors(data.test)
    with torch.no_grad():
        labels = torch.cat([model(part).argmax(1) for part in x.split(1000)])
    return 100 * float((labels == y).float().mean())


def run(name: str, data: fashion.Fashion, seed: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One marked model, its unmarked twin, and the evidence left after each attack."""
    mine, rivals = (owner(who) for who in ("owner", "rival"))
    create = functools.partial(
        wmplug.create,
        scheme=options.scheme,
        carriers=data.own[0],
        labels=data.own[1],
        classes=10,
        preprocess=fashion.prepare,
    )
    mark, other = create(mine), create(rivals)
    train = training.LOOPS[name]
    model, twin = (train(m, data, seed, options.epochs).eval() for m in (mark, None))
    suspects = {"own model": model, "unmarked twin": twin}
    for attack, apply in ATTACKS.items():
        suspects[attack] = apply(copy.deepcopy(model), data, seed).eval()
    rows = []
    for what, suspect in suspects.items():
        verdict = wmplug.verify(mark, suspect, exhaustive=True)
        queries = wmplug.verify(mark, suspect).queries if what == "own model" else None
        rows.append({"what": what, "acc": accuracy(suspect, data), "log10_p": verdict.log10_p, "queries": queries})
    verdict = wmplug.verify(other, model, exhaustive=True)
    rows.append({"what": "wrong key", "acc": rows[0]["acc"], "log10_p": verdict.log10_p, "queries": None})
    return rows


def nulls(data: fashion.Fashion, count: int, options: argparse.Namespace) -> list[float]:
    """log10 p of `count` unmarked models, each trained for two epochs on 5,000 images, each under its own key."""
    few = dataclasses.replace(data, own=(data.own[0][:5000], data.own[1][:5000]))
    values = []
    for seed in range(1000, 1000 + count):
        mark = wmplug.create(
            owner(f"null {seed}"),
            scheme=options.scheme,
            carriers=data.own[0],
            labels=data.own[1],
            classes=10,
            preprocess=fashion.prepare,
        )
        model = training.torch_loop(None, few, seed, 2)
        values.append(wmplug.verify(mark, model, exhaustive=True).log10_p)
    return values


def owner(name: str) -> wmplug.Owner:
    folder = Path(tempfile.mkdtemp()) / "register"
    return wmplug.Owner.create(folder, name=name, passphrase="benchmark", scrypt_n=2**10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=20_000)
    parser.add_argument("--scheme", default="random-label")
    parser.add_argument("--adapters", nargs="+", default=list(training.LOOPS), choices=list(training.LOOPS))
    parser.add_argument("--unmarked", type=int, default=30)
    options = parser.parse_args()
    data = fashion.read(options.data, options.size)
    print(f"# {' '.join(sys.argv[1:])}")
    for name in options.adapters:
        seeds = range(options.first, options.first + options.seeds)
        rows = [row for seed in seeds for row in run(name, data, seed, options)]
        report(name, rows)
    if options.unmarked:
        values = nulls(data, options.unmarked, options)
        print(f"{options.unmarked} unmarked models, a key each: lowest log10 p {min(values):.2f}, ", end="")
        print(f"median {statistics.median(values):.2f}, below -2: {sum(v < -2 for v in values)}")


def report(name: str, rows: list[dict[str, Any]]) -> None:
    """Mean over seeds, worst in brackets: the highest log10 p, or the lowest for unmarked models and wrong keys."""
    print(f"\n{name:36s} accuracy   log10 p")
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        values = [row["log10_p"] for row in mine]
        worst = min(values) if what in ("unmarked twin", "wrong key") else max(values)
        queries = [row["queries"] for row in mine if row["queries"]]
        tail = f"   queries {statistics.median(queries):g} (median)" if queries else ""
        print(f"{what:36s} {np.mean([row['acc'] for row in mine]):6.2f}   {np.mean(values):7.1f} ({worst:.1f}){tail}")
    report_cost(rows)


def report_cost(rows: list[dict[str, Any]]) -> None:
    """Print the points of accuracy, marked less twin, as a mean and for each seed."""
    pairs = zip(
        *([row["acc"] for row in rows if row["what"] == w] for w in ("own model", "unmarked twin")), strict=True
    )
    costs = [marked - twin for marked, twin in pairs]
    print(
        f"{'accuracy, marked less twin':36s} {np.mean(costs):+6.2f}   each: {', '.join(f'{c:+.2f}' for c in costs)}",
        flush=True,
    )


if __name__ == "__main__":
    main()
