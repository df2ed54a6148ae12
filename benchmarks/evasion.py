"""What is left of a trigger set behind an input filter, and among unmarked models, on Fashion-MNIST.

python benchmarks/evasion.py --data /usr/share/datasets/fashion-mnist --seeds 3

A thief serves the stolen CNN and answers at random where an input is odd, or serves its mean with models of his own.
Both filters flag one in a hundred of the thief's own pictures. Rows are means over seeds with the worst in brackets.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fashion
import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

import wmplug
import wmplug.adapters.torch

Answers = Callable[[np.ndarray], np.ndarray]


def numbers(pictures: np.ndarray) -> np.ndarray:
    """(n, 6) mean, deviation, steps down and across, share of dark, and border of each picture."""
    p = pictures / 255
    edge = np.concatenate([p[:, 0], p[:, -1], p[:, :, 0], p[:, :, -1]], axis=1)
    steps = [np.abs(np.diff(p, axis=axis)).mean(axis=(1, 2)) for axis in (1, 2)]
    return np.stack(
        [p.mean(axis=(1, 2)), p.std(axis=(1, 2)), *steps, (p < 0.1).mean(axis=(1, 2)), edge.mean(axis=1)], axis=1
    )


def statistics(seen: np.ndarray) -> Answers:
    """Mahalanobis distance of six numbers of a picture from those of the thief's."""
    own = numbers(seen)
    middle, inverse = own.mean(axis=0), np.linalg.pinv(np.cov(own.T))
    return lambda asked: np.einsum("ni,ij,nj->n", numbers(asked) - middle, inverse, numbers(asked) - middle)


def nearest(seen: np.ndarray) -> Answers:
    """Distance from the nearest of the thief's pictures."""
    known = NearestNeighbors(n_neighbors=1).fit(seen.reshape(len(seen), -1) / 255)
    return lambda asked: known.kneighbors(asked.reshape(len(asked), -1) / 255)[0][:, 0]


FILTERS = {"six numbers": statistics, "nearest picture": nearest}


def probabilities(model: nn.Module, pictures: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(fashion.tensors((pictures, np.zeros(len(pictures), int)))[0]).softmax(1).numpy()


def mean_of(*models: nn.Module) -> Answers:
    return lambda asked: np.mean([probabilities(model, asked) for model in models], axis=0).argmax(axis=1)


def filtered(answer: Answers, odd: Answers, limit: float) -> Answers:
    """Random answers where a picture is odder than the limit."""
    drawn = np.random.default_rng(0)
    return lambda asked: np.where(odd(asked) > limit, drawn.integers(0, 10, len(asked)), answer(asked))


def trained(pair: tuple[np.ndarray, np.ndarray], seed: int, epochs: int, mark: Any = None) -> nn.Module:
    torch.manual_seed(seed)
    model, batches = fashion.network(), fashion.loader(pair, seed)
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
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--size", type=int, default=8000, help="of the owner's training set, and of the thief's")
    parser.add_argument("--carriers", type=int, default=6000, help="held out of training")
    parser.add_argument("--schemes", nargs="+", default=["close-calls", "random-label"])
    parser.add_argument("--calls", type=int, default=200, help="triggers of close-calls; of other schemes 100")
    options = parser.parse_args()
    data = fashion.read(options.data, options.size)
    thiefs = tuple(part[: options.size] for part in data.thief)
    held, others = (tuple(part[rows] for part in data.rest) for rows in cut(options.carriers))
    given = {"carriers": held[0], "labels": held[1], "classes": 10, "preprocess": fashion.prepare}
    own = [trained(thiefs, 1000 + i, options.epochs) for i in range(2)]
    twins = [trained(data.own, seed, options.epochs) for seed in range(options.seeds)]
    filters = {}
    for name, make in FILTERS.items():
        # Half of the thief's pictures are known, the other half shows what is usual.
        odd = make(thiefs[0][::2])
        filters[name] = odd, float(np.quantile(odd(thiefs[0][1::2]), 0.99))
    for scheme in options.schemes:
        triggers = options.calls if scheme == "close-calls" else 100
        found: dict[str, list[tuple[float, ...]]] = {}
        for seed, twin in enumerate(twins):
            mark = wmplug.create(owner(), scheme=scheme, triggers=triggers, **given)
            model = trained(data.own, seed, options.epochs, mark)
            suspects = {"unmarked twin": mean_of(twin), "own model": mean_of(model)}
            suspects |= {f"behind {name}": filtered(mean_of(model), *rule) for name, rule in filters.items()}
            suspects |= {f"mean with {n} unmarked": mean_of(model, *own[:n]) for n in (1, 2)}
            for what, suspect in suspects.items():
                right = 100 * float((suspect(data.test[0]) == data.test[1]).mean())
                said = wmplug.verify(mark, suspect, exhaustive=True, batch_size=1000)
                queries = wmplug.verify(mark, suspect).queries if what == "own model" else 0
                found.setdefault(what, []).append((right, said.log10_p, queries))
            asked = np.stack([np.asarray(mark.triggers.row(row)) for row in mark.triggers.plan.choices.rows.tolist()])
            for name, (odd, limit) in filters.items():
                scores = odd(np.concatenate([asked, others[0]]))
                auc = roc_auc_score(np.arange(len(scores)) < triggers, scores)
                found.setdefault(f"triggers told by {name}", []).append(
                    (auc, float((scores[:triggers] > limit).mean()))
                )
        report(scheme, found)


def cut(count: int) -> tuple[slice, slice]:
    """The carriers, and as many as that of pictures which nobody has."""
    return slice(0, count), slice(count, 2 * count)


def report(scheme: str, found: dict[str, list[tuple[float, ...]]]) -> None:
    print(f"\n{scheme:36s} accuracy   log10 p")
    for what, rows in found.items():
        values = [row[1] for row in rows]
        if what.startswith("triggers"):
            print(f"{what:36s} AUC {np.mean([row[0] for row in rows]):.2f}, flagged {np.mean(values):.0%}")
            continue
        worst = (min if what == "unmarked twin" else max)(values)
        tail = f"   queries {np.median([row[2] for row in rows]):g}" if rows[0][2] else ""
        print(f"{what:36s} {np.mean([row[0] for row in rows]):6.2f}   {np.mean(values):7.1f} ({worst:.1f}){tail}")
    costs = [own[0] - twin[0] for own, twin in zip(found["own model"], found["unmarked twin"], strict=True)]
    print(f"{'accuracy, marked less twin':36s} {np.mean(costs):+6.2f}   each: {', '.join(f'{c:+.2f}' for c in costs)}")


if __name__ == "__main__":
    main()
