"""What is left of a trigger set behind an input filter, among unmarked models, and after theft, on Fashion-MNIST.

python benchmarks/evasion.py --data /usr/share/datasets/fashion-mnist --seeds 3

A thief serves the stolen CNN and answers at random where an input is odd, serves its mean with models of their own, or
changes its weights. The filters flag one in twenty of the thief's own pictures. Rows are means over seeds with the
worst in brackets; log10 p by labels, and where the thief serves scores.
"""

import argparse
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fashion
import numpy as np
import torch
from robustness import ATTACKS
from torch import nn

import wmplug
import wmplug.adapters.torch
from wmplug.making import oddness
from wmplug.statistics import outliers

ALARMS = 0.05
Answers = Callable[[np.ndarray], np.ndarray]


def statistics(seen: np.ndarray) -> Answers:
    """Six numbers of a picture, and their distance from those of the thief's."""
    odd = outliers.distance(oddness.numbers(seen[..., None], (0, 255)))
    return lambda asked: odd(oddness.numbers(asked[..., None], (0, 255)))


def of_rows(make: Callable[[np.ndarray], Answers]) -> Callable[[np.ndarray], Answers]:
    def filter_of(seen: np.ndarray) -> Answers:
        odd = make(rows(seen[:5000]))
        return lambda asked: odd(rows(asked))

    return filter_of


def rows(pictures: np.ndarray) -> np.ndarray:
    return pictures.reshape(len(pictures), -1) / 255


FILTERS = {"statistics": statistics, **{name: of_rows(make) for name, make in outliers.ROWS.items()}}


def probabilities(model: nn.Module, pictures: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(fashion.tensors((pictures, np.zeros(len(pictures), int)))[0]).softmax(1).numpy()


def mean_of(*models: nn.Module) -> Answers:
    """Their mean probabilities."""
    return lambda asked: np.mean([probabilities(model, asked) for model in models], axis=0)


def labels(answer: Answers) -> Answers:
    return lambda asked: answer(asked).argmax(axis=1)


def filtered(answer: Answers, odd: Answers, limit: float) -> Answers:
    """Random scores where a picture is odder than the limit."""
    drawn = np.random.default_rng(0)
    return lambda asked: np.where(
        (odd(asked) > limit)[:, None], drawn.dirichlet(np.full(10, 0.1), len(asked)), answer(asked)
    )


fast = torch.autocast("cpu", torch.bfloat16, cache_enabled=False)  # which most CPUs of servers compute fast


@fast
def trained(pair: tuple[np.ndarray, np.ndarray], seed: int, epochs: int, mark: Any = None) -> nn.Module:
    torch.manual_seed(seed)
    model, batches = fashion.network().to(memory_format=torch.channels_last), fashion.loader(pair, seed)
    if mark is None:
        return fashion.fit(model, batches, epochs)
    with wmplug.adapters.torch.Watermarking(mark, model, batches) as marking:
        fashion.fit(model, batches, epochs)
        marking.checkpoint()
    return model.eval()


def owner() -> wmplug.Owner:
    return wmplug.Owner.create(
        Path(tempfile.mkdtemp()) / "register", name="owner", passphrase="benchmark", scrypt_n=2**10
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--size", type=int, default=20_000, help="of the owner's training set")
    parser.add_argument("--carriers", type=int, default=10_000, help="held out of training")
    parser.add_argument("--schemes", nargs="+", default=["mixed", "close-calls", "random-label"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = fashion.read(options.data, options.size)
    held = tuple(part[: options.carriers] for part in data.rest)
    given = {"carriers": held[0], "labels": held[1], "classes": 10, "preprocess": fashion.prepare}
    own = [trained(data.thief, 1000 + i, options.epochs) for i in range(2)]
    filters = {}
    for name, make in FILTERS.items():
        # Half of the thief's pictures are known, the other half shows what is usual.
        odd = make(data.thief[0][::2])
        filters[name] = odd, float(np.quantile(odd(data.thief[0][1::2][:5000]), 1 - ALARMS))
    seeds = range(options.first, options.first + options.seeds)
    twins = [trained(data.own, seed, options.epochs) for seed in seeds]
    for scheme in options.schemes:
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed, twin in zip(seeds, twins, strict=True):
            mark, rival = (wmplug.create(owner(), scheme=scheme, **given) for _ in range(2))
            model = trained(data.own, seed, options.epochs, mark)
            for what, suspect in suspects(model, own, filters, data, seed).items():
                note(found, what, mark, suspect, data)
            note(found, "unmarked twin", mark, mean_of(twin), data)
            note(found, "wrong key", rival, mean_of(model), data)
            plan = mark.triggers.plan
            told = oddness.told_apart(plan, held[0], natural=mark.scheme.natural)
            print(
                f"  {scheme}, seed {seed}, AUC of its triggers{' that are natural' * mark.scheme.natural}: {told}",
                flush=True,
            )
        report(scheme, found)


def suspects(
    model: nn.Module, own: list[nn.Module], filters: Any, data: fashion.Fashion, seed: int
) -> dict[str, Answers]:
    found = {"own model": mean_of(model)}
    found |= {f"behind {name}": filtered(mean_of(model), *rule) for name, rule in filters.items()}
    found |= {f"mean with {n} unmarked": mean_of(model, *own[:n]) for n in (1, 2)}
    return found | {what: mean_of(attack(copy.deepcopy(model), data, seed).eval()) for what, attack in ATTACKS.items()}


def note(found: dict[str, Any], what: str, mark: wmplug.Watermark, suspect: Answers, data: fashion.Fashion) -> None:
    right = 100 * float((suspect(data.test[0]).argmax(axis=1) == data.test[1]).mean())
    by = [wmplug.verify(mark, one, exhaustive=True, batch_size=1000).log10_p for one in (labels(suspect), suspect)]
    queries = wmplug.verify(mark, labels(suspect)).queries if what == "own model" else 0
    found.setdefault(what, []).append((right, *by, queries))
    print(f"  {what:36s} {right:6.2f} {by[0]:7.1f} {by[1]:7.1f}", flush=True)


def report(scheme: str, found: dict[str, list[tuple[float, ...]]]) -> None:
    print(f"\n{scheme:36s} accuracy   log10 p by labels    by scores")
    for what, rows in found.items():
        columns = list(zip(*rows, strict=True))
        worst = min if what in ("unmarked twin", "wrong key") else max
        numbers = "".join(f"   {np.mean(column):7.1f} ({worst(column):.1f})" for column in columns[1:3])
        tail = f"   queries {np.median(columns[3]):g}" if columns[3][0] else ""
        print(f"{what:36s} {np.mean(columns[0]):6.2f}{numbers}{tail}")
    costs = [own[0] - twin[0] for own, twin in zip(found["own model"], found["unmarked twin"], strict=True)]
    print(f"{'accuracy, marked less twin':36s} {np.mean(costs):+6.2f}   each: {', '.join(f'{c:+.2f}' for c in costs)}")


if __name__ == "__main__":
    main()
