"""What clones of a served model keep of the key, on Fashion-MNIST.

python benchmarks/serving.py --data /usr/share/datasets/fashion-mnist --seeds 3

An owner trains a CNN on 20,000 images and serves it with a watermark of scheme `served`. A copyist asks 20,000 other
images and trains on the answers: a network of another kind, for ten epochs or briefly, on labels or on scores, and then
cleans. References are three CNNs of 10,000 images that nobody else has. Training is in bfloat16, which most CPUs of
servers compute fast.
"""

import argparse
import dataclasses
import hmac
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fashion
import numpy as np
import torch
from scipy.stats import binom
from torch import nn

import wmplug
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving
from wmplug.serving.answers import Scores

Pair = tuple[np.ndarray, np.ndarray]
Answers = Callable[[np.ndarray], np.ndarray]
HELD = 6000


def small() -> nn.Sequential:
    """A network too small to learn its set by heart."""
    return nn.Sequential(
        *(nn.Conv2d(1, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(24 * 49, 32), nn.ReLU(), nn.Linear(32, 10)),
    )


def fitted(model: nn.Module, images: np.ndarray, targets: np.ndarray, seed: int, epochs: int, rate: float = 1e-3):
    """The model after training on classes (n,) or probabilities (n, 10), in bfloat16."""
    torch.manual_seed(seed)
    inputs, wanted = fashion.tensors((images, targets))
    wanted = wanted.float() if targets.ndim == 2 else wanted
    model, inputs = (what.to(memory_format=torch.channels_last) for what in (model, inputs))
    optimizer = torch.optim.Adam(model.parameters(), rate)
    model.train()
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(fashion.BATCH):
            with torch.autocast("cpu", torch.bfloat16):
                said = model(inputs[rows])
            loss = nn.functional.cross_entropy(said.float(), wanted[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def probabilities(model: nn.Module) -> Answers:
    @torch.no_grad()
    def answer(images: np.ndarray) -> np.ndarray:
        inputs = fashion.tensors((images, np.zeros(len(images), int)))[0]
        return torch.cat([model(part).softmax(1) for part in inputs.split(1000)]).numpy()

    return answer


def disputed(images: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows whose label a copyist's own models, each trained without them, do not give."""
    fold = np.random.default_rng(seed).integers(0, 3, len(images))
    said = np.zeros(len(images), int)
    for part in range(3):
        model = fitted(fashion.clone_network(), images[fold != part], labels[fold != part], 900 + 3 * seed + part, 4)
        said[fold == part] = probabilities(model)(images[fold == part]).argmax(axis=1)
    return said != labels


def again(serving: Serving, answer: Answers, images: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """The majority of nine answers under noise (a share of 255)."""
    drawn = np.random.default_rng(seed)
    votes = np.zeros((len(images), 10))
    for _ in range(9):
        near = np.clip(images + drawn.normal(0, 255 * noise, images.shape), 0, 255).round().astype(np.uint8)
        votes[np.arange(len(images)), serving.served(near, answer(near)).argmax(axis=1)] += 1
    return votes.argmax(axis=1)


def dawn(images: np.ndarray, labels: np.ndarray, share: float = 0.005) -> tuple[np.ndarray, np.ndarray]:
    """DAWN's rule, by our own reading of the paper: a keyed hash picks a share of queries and another class for each.

    Returns:
        The labels that are served, and the rows whose label is wrong.
    """
    words = [hmac.digest(b"key", image.tobytes(), "sha256") for image in images]
    drawn = np.array(
        [[int.from_bytes(word[:8], "big"), int.from_bytes(word[8:16], "big")] for word in words], np.uint64
    )
    rows = np.flatnonzero(drawn[:, 0] < np.uint64(int(share * 2**64)))
    told = labels.copy()
    told[rows] = (labels[rows] + 1 + (drawn[rows, 1] % np.uint64(9)).astype(int)) % 10
    return told, rows


def log_loss(scores: np.ndarray, labels: np.ndarray) -> float:
    return float(-np.log(np.maximum(scores[np.arange(len(labels)), labels], 1e-6)).mean())


class Rows:
    """Named figures, gathered over seeds."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[float, ...]]] = {}

    def add(self, name: str, *values: float) -> None:
        self._found.setdefault(name, []).append(values)
        print(f"  {name:46s}" + "".join(f"{value:9.2f}" for value in values), flush=True)

    def report(self) -> None:
        print("\nmeans over seeds, the largest in brackets")
        for name, rows in self._found.items():
            columns = zip(*rows, strict=True)
            print(f"{name:48s}" + "".join(f"{np.mean(c):9.2f} ({np.max(c):.2f})" for c in columns))


def beside(model: Answers, data: fashion.Fashion, labels: np.ndarray, seed: int, rows: Rows) -> None:
    """What DAWN's rule would keep: the same copyist, told wrong answers to half a per cent of the queries."""
    images, (wrong, chosen) = data.thief[0], dawn(data.thief[0], labels)
    clone = probabilities(fitted(fashion.clone_network(), images, wrong, 450 + seed, 10))
    for name, copy in (("DAWN, other CNN, 10 epochs", clone), ("DAWN, unmarked", model)):
        same = int((copy(images[chosen]).argmax(axis=1) == wrong[chosen]).sum())
        accuracy = 100 * float((copy(data.test[0]).argmax(axis=1) == data.test[1]).mean())
        # Whatever an independent model answers, a wrong class drawn from nine is it with a chance of 1/9 at most.
        log10_p = binom.logsf(same - 1, len(chosen), 1 / 9) / np.log(10)
        rows.add(f"{name}; wrong answers, points", accuracy, log10_p, len(chosen))


@dataclasses.dataclass(frozen=True)
class Owned:
    """An owner's model, its watermark, and references: what unmarked models say of images (n, 10)."""

    mark: wmplug.Watermark
    model: Answers
    pool: Answers
    log: Log
    held: Pair

    @classmethod
    def of(cls, data: fashion.Fashion, seed: int, cells: int) -> "Owned":
        held, rest = (tuple(part[cut] for part in data.rest) for cut in (slice(0, HELD), slice(HELD, HELD + 10_000)))
        references = [probabilities(fitted(fashion.network(), *rest, 700 + 10 * seed + i, 3)) for i in range(3)]

        def pool(images: np.ndarray) -> np.ndarray:
            return np.mean([one(images) for one in references], axis=0)

        folder = Path(tempfile.mkdtemp())
        owner = wmplug.Owner.create(folder / "register", name="owner", passphrase="benchmark", scrypt_n=2**10)
        scheme = Served(cells=cells, personal=0.0, pool=pool(held[0]))
        given = {"carriers": held[0], "labels": held[1], "classes": 10, "preprocess": fashion.prepare}
        mark = wmplug.create(owner, scheme=scheme, **given)
        model = probabilities(fitted(fashion.network(), *data.own, seed, 8))
        return cls(mark, model, pool, Log(folder / "log.db", mark), held)

    def asking(self) -> wmplug.Watermark:
        """The watermark that asks what the key decided."""
        decided = self.log.decided()
        return self.mark.with_queries(
            decided, carriers=self.held[0], labels=self.held[1], pool=self.pool(decided.inputs)
        )


def run(data: fashion.Fashion, seed: int, options: argparse.Namespace, rows: Rows) -> None:
    owned = Owned.of(data, seed, options.cells)
    mark, model, log = owned.mark, owned.model, owned.log
    serving = Serving(mark, log=log, gap=options.gap, margin=options.margin)
    images, truth = data.thief
    plain = model(images)
    began = time.perf_counter()
    told = serving.served(images, plain)
    spent = time.perf_counter() - began
    labels = told.argmax(axis=1)
    right = model(data.test[0])
    asked = owned.asking()
    cost = Serving(mark, lambda x: model(np.asarray(x)), gap=options.gap).cost(data.test[0])
    shown = Serving(mark, gap=options.gap, margin=options.margin).served(data.test[0], right)
    measured = 100 * float((right.argmax(1) == data.test[1]).mean() - (shown.argmax(1) == data.test[1]).mean())
    rows.add("queries decided, microseconds a query with log", len(log.decided()), 1e6 * spent / len(images))
    rows.add("cost in points: expected, measured", cost.points, measured)
    rows.add(
        "log loss on the test set: the model's, as served", *(log_loss(one, data.test[1]) for one in (right, shown))
    )

    def put(name: str, suspect: nn.Module) -> None:
        scores = probabilities(suspect)
        exact = [
            wmplug.verify(asked, one, exhaustive=True, batch_size=1000).log10_p
            for one in (lambda x: scores(x).argmax(axis=1), scores)
        ]
        early = wmplug.verify(asked, lambda x: scores(x).argmax(axis=1), batch_size=1000)
        accuracy = 100 * float((scores(data.test[0]).argmax(axis=1) == data.test[1]).mean())
        rows.add(name, accuracy, *exact, early.queries if early.proven else np.nan)

    print(f"seed {seed}: accuracy, log10 p by labels, by scores, queries to a proof by labels")
    clone = fitted(fashion.clone_network(), images, labels, 100 + seed, 10)
    put("hard labels, other CNN, 10 epochs", clone)
    put("small CNN, 5 epochs", fitted(small(), images, labels, 200 + seed, 5))
    put("scores, other CNN, 10 epochs", fitted(fashion.clone_network(), images, told, 300 + seed, 10))
    put("unmarked: the same images, true labels", fitted(fashion.clone_network(), images, truth, 400 + seed, 10))
    if options.peer:
        beside(model, data, plain.argmax(axis=1), seed, rows)
    if options.quick:
        return
    other, kept = fashion.clone_network, ~disputed(images, labels, seed)
    put("hard labels, disputed ones dropped", fitted(other(), images[kept], labels[kept], 600 + seed, 10))
    sure = told.max(axis=1) >= 0.9
    put("scores, answers below .9 dropped", fitted(other(), images[sure], told[sure], 650 + seed, 10))
    put("hard labels, then 4,000 true labels", fitted(clone, *data.other, 800 + seed, 10))
    chosen = Scores.of(plain, len(plain), 10).unsure(options.gap)[0]
    first = Serving(mark, gap=options.gap)
    first.served(images[chosen], plain[chosen])
    for noise in (0.02, 0.05, 0.1):
        # By a service without memory, by one that is asked copies alone, and by one that was asked the image before.
        services = Serving(mark, gap=options.gap, remember=0), Serving(mark, gap=options.gap), first
        said = [again(one, model, images[chosen], noise, seed) for one in services]
        changed = [100 * float((majority != labels[chosen]).mean()) for majority in said]
        rows.add(f"changed by nine askings, noise {noise}, %: forgetful, copies, after", *changed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--gap", type=float, default=0.1)
    parser.add_argument("--margin", type=float, default=2.0)
    parser.add_argument("--peer", action="store_true", help="with a clone of a model that DAWN's rule serves")
    parser.add_argument("--quick", action="store_true", help="without the copyist who cleans")
    options = parser.parse_args()
    torch.set_num_threads(1)
    data, rows = fashion.read(options.data, 20_000), Rows()
    for seed in range(options.first, options.first + options.seeds):
        run(data, seed, options, rows)
    rows.report()


if __name__ == "__main__":
    main()
