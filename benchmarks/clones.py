"""The evidence left in stolen models, and in clones that only ever saw answers, on Fashion-MNIST.

python benchmarks/clones.py --data /usr/share/datasets/fashion-mnist --seeds 4

The owner trains on 20,000 images; the thief has 20,000 others without labels and 4,000 of these with. `unseen` are
verdicts on questions that were chosen when the mark was made, among 20,000 images that nobody trains on. For `labels`
and `scores` the owner chooses 4,000 of all 40,000 queries to the API (`with_queries`): the thief's, and as many of
other customers. `labels` uses a suspect's bare answers, `scores` its probabilities. Every row is a mean over seeds with
the worst in brackets; each seed has a key of its own.
"""

import argparse
import copy
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import fashion
import numpy as np
import robustness
import torch
import training
from torch import nn

import wmplug
from wmplug.schemes import Brief
from wmplug.schemes.tilt import Tilt
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.tasks import Classes

SCHEMES = ("combined", "random-label")
COLUMNS = ("unseen", "labels", "scores")


def answers(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """(n, 10) probabilities."""
    with torch.no_grad():
        return torch.cat([model.eval()(part).softmax(1) for part in images.split(1000)])


def cloned(model: nn.Module, data: fashion.Fashion, seed: int, *, soft: bool) -> nn.Module:
    """A clone trained on nothing but the model's answers to the thief's images: labels, or probabilities."""
    torch.manual_seed(seed + 300)
    images, _ = fashion.tensors(data.thief)
    given = answers(model, images)
    batches = fashion.batches(images, given if soft else given.argmax(1), seed + 300)
    return fashion.fit(fashion.clone_network(), batches, 8)


def suspects_of(model: nn.Module, data: fashion.Fashion, seed: int) -> dict[str, nn.Module]:
    """Copies of a model, and clones."""
    hard = cloned(model, data, seed, soft=False)
    few = fashion.loader(data.other, seed + 400)
    found = {
        "hard-label clone": hard,
        "soft-label clone": cloned(model, data, seed, soft=True),
        "hard-label clone, then fine-tuned": fashion.fit(copy.deepcopy(hard), few, 5),
        "hard-label clone, gently fine-tuned": fashion.fit(copy.deepcopy(hard), few, 2, lr=1e-4),
    }
    for name, attack in robustness.ATTACKS.items():
        found[name] = attack(copy.deepcopy(model), data, seed).eval()
    return found


def labels_only(model: nn.Module) -> Any:
    """The model as an API that returns no scores."""

    def ask(images: np.ndarray) -> np.ndarray:
        x, _ = fashion.tensors((images, np.zeros(len(images), np.int64)))
        return answers(model, x).argmax(1).numpy()

    return ask


def rows_of(mark: wmplug.Watermark, rival: wmplug.Watermark, model: nn.Module, twin: nn.Module, **others: Any) -> Any:
    """(name, suspect, watermark) of every test."""
    yield "own model", model, mark
    yield "unmarked twin", twin, mark
    yield "wrong key", model, rival
    for what, suspect in others.items():
        yield what, suspect, mark


def run(scheme: str, data: fashion.Fashion, seed: int, options: argparse.Namespace, pool: Any) -> list[dict[str, Any]]:
    """One marked model, its twin, its copies and clones, asked with and without scores."""
    more = {} if scheme == "random-label" else {"delta": options.delta, "queries": data.rest[0], "pool": pool}
    mark, rival = (
        wmplug.create(
            robustness.owner(who),
            scheme=scheme,
            carriers=data.own[0],
            labels=data.own[1],
            classes=10,
            preprocess=fashion.prepare,
            **more,
        )
        for who in ("owner", "rival")
    )
    model, twin = (training.torch_loop(m, data, seed, options.epochs).eval() for m in (mark, None))
    rows = []
    if mark.triggers.plan.pattern is not None:
        print(
            f"# {scheme} seed {seed}: unmarked twin, 500 other keys: {under_other_keys(mark, twin, seed)}", flush=True
        )
    logged = {key: key if scheme == "random-label" else asking(key, data) for key in (mark, rival)}
    for what, suspect, key in rows_of(mark, rival, model, twin, **suspects_of(model, data, seed)):
        other = logged[key]
        found = {
            "unseen": wmplug.verify(key, labels_only(suspect), exhaustive=True, batch_size=1000),
            "labels": wmplug.verify(other, labels_only(suspect), exhaustive=True, batch_size=1000),
            "scores": wmplug.verify(other, suspect, exhaustive=True),
        }
        row = {"what": what, "acc": robustness.accuracy(suspect, data), **{c: v.log10_p for c, v in found.items()}}
        spent = [wmplug.verify(other, s) for s in (labels_only(suspect), suspect)]
        row["queries"] = [v.queries if v.proven else None for v in spent]
        rows.append(row)
        told = "; ".join(f"{column} {verdict}" for column, verdict in found.items())
        print(f"# {scheme} seed {seed}: {what}, {row['acc']:.2f} %, {told}", flush=True)
    return rows


def under_other_keys(mark: wmplug.Watermark, model: nn.Module, seed: int) -> str:
    """P-values of an unmarked suspect under 500 label keys drawn anew, by labels and by scores."""
    plan = mark.triggers.plan
    x, _ = fashion.tensors((np.asarray(plan.inputs)[plan.pattern.rows], np.zeros(len(plan.pattern.rows), np.int64)))
    scores = np.log(np.maximum(answers(model, x).numpy().astype(np.float64), 1e-4))
    keys = 2 * np.random.default_rng(seed).integers(0, 2, (500, plan.pattern.signs)) - 1
    found = [
        weighted_ps(weights_of(mark.scheme.weigh(plan, scores.argmax(axis=1), given)), keys) for given in (None, scores)
    ]
    return ", ".join(f"p <= .01 for {(p <= 0.01).sum()}, smallest {p.min():.4f}" for p in found)


def asking(mark: wmplug.Watermark, data: fashion.Fashion) -> wmplug.Watermark:
    """The watermark with questions from the API's log: the thief's queries and others'."""
    log = np.concatenate([data.thief[0], data.rest[0]])
    return mark.with_queries(log, carriers=data.own[0], labels=data.own[1])


def report(scheme: str, rows: list[dict[str, Any]]) -> None:
    """Mean over seeds, worst in brackets; queries are medians, where every seed was proven."""
    print(f"\n{scheme:36s} accuracy   unseen             labels             scores             queries until proven")
    for what in dict.fromkeys(row["what"] for row in rows):
        mine = [row for row in rows if row["what"] == what]
        null = what in ("unmarked twin", "wrong key")
        cells = []
        for column in COLUMNS:
            values = [row[column] for row in mine]
            cells.append(f"{np.mean(values):7.1f} ({(min if null else max)(values):6.1f})")
        spent = [[row["queries"][i] for row in mine] for i in (0, 1)]
        told = ", ".join("-" if None in q else f"{statistics.median(q):g}" for q in spent)
        print(f"{what:36s} {np.mean([row['acc'] for row in mine]):6.2f}   {'   '.join(cells)}   {told}")
    robustness.report_cost(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument("--delta", type=float, default=0.3)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=list(SCHEMES))
    options = parser.parse_args()
    data = fashion.read(options.data, 20_000)
    print(f"# {' '.join(sys.argv[1:])}")
    pool = None
    if "combined" in options.schemes:
        begun = time.perf_counter()
        pool = references(data)
        print(f"# references: {time.perf_counter() - begun:.0f} s", flush=True)
    for scheme in options.schemes:
        seeds = range(options.first, options.first + options.seeds)
        report(scheme, [row for seed in seeds for row in run(scheme, data, seed, options, pool)])


def references(data: fashion.Fashion) -> np.ndarray:
    """The answers of wmplug's own references, which need no key, so that one pool serves all seeds."""
    task = Brief(data.own[0], "array", Classes(10), data.own[1], 100)
    return Tilt(queries=data.rest[0]).prepared(task).pool


if __name__ == "__main__":
    main()
