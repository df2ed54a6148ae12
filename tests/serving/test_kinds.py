"""Texts, tables and models of two classes that give one score are served as pictures are."""

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from wmplug import create, verify
from wmplug.schemes.served import Served
from wmplug.serving import Decided, Log, Serving
from wmplug.testing.schemes import fixed_owner


def claim(name, inputs, labels, classes, own, copy, gap, folder, outputs=lambda model, x: model.predict_proba(x)):
    """The verdicts on a clone of served answers, and on a model of the same kind that learnt the truth."""
    third = len(labels) // 3
    pick = lambda first, last: (inputs[first:last], labels[first:last])  # noqa: E731
    train, held, asked = pick(0, third), pick(third, 2 * third), pick(2 * third, None)
    model, reference = own().fit(*train), own().fit(*held)
    mark = create(
        fixed_owner(name),
        scheme=Served(cells=60, personal=0.0, pool=reference.predict_proba(held[0])),
        carriers=held[0],
        labels=held[1],
        classes=classes,
    )
    log = Log(folder / "log.db", mark)
    told = Serving(mark, log=log, gap=gap, logits=False).served(asked[0], outputs(model, asked[0]))
    answers = told.argmax(axis=1) if told.ndim == 2 else (told > 0.5).astype(int)
    decided = log.decided()
    asking = mark.with_queries(decided, carriers=held[0], labels=held[1], pool=reference.predict_proba(decided.inputs))
    found = []
    for learnt in (answers, asked[1]):
        suspect = copy().fit(asked[0], learnt)
        found.append(verify(asking, lambda x, s=suspect: s.predict(x), exhaustive=True))
    return mark, decided, found


def test_texts(topics, tmp_path):
    texts, labels = topics
    own = lambda: make_pipeline(TfidfVectorizer(), LogisticRegression(C=3))  # noqa: E731
    copy = lambda: make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC(C=10))  # noqa: E731
    _, decided, (clone, other) = claim("texts", list(texts), labels, 4, own, copy, 0.2, tmp_path)
    assert all(isinstance(text, str) for text in decided.inputs)
    assert clone.log10_p < -6
    assert other.log10_p > -3


@pytest.mark.parametrize("single", [False, True])
def test_tables_of_two_classes(single, tmp_path):
    data = load_breast_cancer()
    order = np.random.default_rng(0).permutation(len(data.target))
    own = lambda: make_pipeline(StandardScaler(), LogisticRegression(C=0.003))  # noqa: E731
    copy = lambda: ExtraTreesClassifier(100, random_state=0)  # noqa: E731
    outputs = (lambda model, x: model.predict_proba(x)[:, 1]) if single else (lambda model, x: model.predict_proba(x))
    rows = data.data[order], data.target[order]
    _, _, (clone, other) = claim("table", *rows, 2, own, copy, 0.4, tmp_path, outputs)
    assert clone.log10_p < -6
    assert other.log10_p > -3


def test_one_score_and_two_are_decided_alike(tmp_path):
    data = load_breast_cancer()
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.003)).fit(data.data[::2], data.target[::2])
    scores = model.predict_proba(data.data)
    mark = create(
        fixed_owner("two"), scheme=Served(cells=30, pool=scores), carriers=data.data, labels=data.target, classes=2
    )
    serving = Serving(mark, gap=0.4, logits=False)
    both, one = serving.served(data.data, scores), serving.served(data.data, scores[:, 1])
    assert np.allclose(both[:, 1], one)
    assert not np.allclose(one, scores[:, 1])
    assert Decided(data.data[:1], np.array([[0, 1]])).customers == ("",)
