"""Lessons beside rows in any container, and the stories of models that learnt them."""

import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, make_friedman1
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from wmplug import InputError, create, verify
from wmplug.adapters.sklearn import augment
from wmplug.errors import InjectionError, InjectionWarning
from wmplug.schemes import Brief
from wmplug.schemes.rows import Rows
from wmplug.tasks import Classes, Numbers
from wmplug.testing.schemes import fixed_owner

TRIGGERS = 80
pytestmark = pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
# Like houses by district: thousands of rows, smooth and crossed effects, noise.
LOADERS = {
    "diabetes": lambda: load_diabetes(return_X_y=True),
    "houses": lambda: make_friedman1(4000, 8, noise=1.0, random_state=0),
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
}
TASKS = {"diabetes": Numbers(), "houses": Numbers("kEUR"), "cancer": Classes(2), "digits": Classes(10)}


@functools.cache
def parts(name, seed=0):
    """Training rows and labels, then held-out ones."""
    rows, labels = LOADERS[name]()
    order = np.random.default_rng(seed).permutation(len(rows))
    train, held = np.split(order, [3 * len(rows) // 4])
    return rows[train], labels[train], rows[held], labels[held]


@functools.cache
def prepared(name, seed=0):
    rows, labels, *_ = parts(name, seed)
    return Rows().prepared(Brief(rows, "array", TASKS[name], TASKS[name].labels(labels, len(rows)), TRIGGERS))


@functools.cache
def marked(name, owner="Ada", seed=0):
    rows, labels, *_ = parts(name, seed)
    given = {"carriers": rows, "labels": labels, "task": TASKS[name], "triggers": TRIGGERS}
    return create(fixed_owner(owner), scheme=prepared(name, seed), **given)


def taught(mark):
    rows, answers = zip(*mark.lessons(), strict=True)
    return np.stack(rows), np.array(answers)


@pytest.mark.parametrize("name", ["diabetes", "cancer"])
def test_arrays_keep_their_dtype_and_come_first(name):
    rows, labels, *_ = parts(name)
    mark = marked(name)
    inputs, answers = taught(mark)
    for dtype in (np.float32, np.float64):
        X, y = augment(mark, rows.astype(dtype), labels)
        assert (X.dtype, y.dtype) == (dtype, labels.dtype)
        np.testing.assert_array_equal(X, np.r_[rows, inputs].astype(dtype))
        np.testing.assert_array_equal(y, np.r_[labels, answers])
    assert augment(mark, rows, labels.tolist())[1] == [*labels.tolist(), *answers.tolist()]
    assert len(rows) + 3 * TRIGGERS == len(X)


def test_a_lesson_weighs_as_much_as_a_row_on_average():
    rows, labels, *_ = parts("cancer")
    weights = np.random.default_rng(0).uniform(0, 2, len(rows)).astype(np.float32)
    *_, found = augment(marked("cancer"), rows, labels, weights)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[: len(rows)], weights)
    np.testing.assert_allclose(found[len(rows) :], weights.mean(), rtol=1e-5)


def test_data_frames_of_pandas_keep_columns_and_dtypes():
    rows, labels, *_ = parts("digits")
    frame = pd.DataFrame(rows, columns=[f"p{i}" for i in range(64)], index=np.arange(len(rows)) + 7)
    frame = frame.astype({"p0": "float32", "p1": "int8", "p2": "Int64"})
    frame["p3"] = pd.Categorical(frame["p3"], categories=np.arange(17.0))
    answers = pd.Series(labels, index=frame.index, name="digit").astype("category")
    X, y = augment(marked("digits"), frame, answers)
    assert X.dtypes.tolist() == frame.dtypes.tolist()
    assert list(X.columns) == list(frame.columns)
    assert (y.dtype, y.name) == (answers.dtype, "digit")
    inputs, secret = taught(marked("digits"))
    np.testing.assert_array_equal(X.to_numpy(np.float64), np.r_[rows, inputs])
    np.testing.assert_array_equal(y.to_numpy(), np.r_[labels, secret])
    assert X.index.tolist() == y.index.tolist()
    frame["p3"] = pd.Categorical(np.zeros(len(frame)), categories=[0.0])
    with pytest.raises(InputError, match="categories"):
        augment(marked("digits"), frame, answers)


def test_data_frames_of_polars_keep_columns_and_dtypes():
    polars = pytest.importorskip("polars")
    rows, labels, *_ = parts("digits")
    frame = polars.DataFrame(rows, schema=[f"p{i}" for i in range(64)]).with_columns(
        polars.col("p1").cast(polars.Int8), polars.col("p2").cast(polars.Float32)
    )
    X, y = augment(marked("digits"), frame, polars.Series("digit", labels).cast(polars.UInt8))
    assert X.schema == frame.schema
    assert (y.dtype, y.name) == (polars.UInt8, "digit")
    inputs, secret = taught(marked("digits"))
    np.testing.assert_array_equal(X.to_numpy(), np.r_[rows, inputs])
    np.testing.assert_array_equal(y.to_numpy(), np.r_[labels, secret])


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csr_array, sparse.csc_matrix])
def test_sparse_matrices_stay_sparse(kind):
    rows, labels, *_ = parts("digits")
    given = kind(rows.astype(np.float32))
    X, _ = augment(marked("digits"), given, labels)
    assert (type(X), X.dtype, X.format) == (kind, np.float32, given.format)
    np.testing.assert_array_equal(X.toarray(), np.r_[rows, taught(marked("digits"))[0]])


def test_names_of_classes_stay_names():
    rows, labels, *_ = parts("cancer")
    names = np.array(["malignant", "benign"])[labels]
    given = {"carriers": rows, "labels": names, "triggers": TRIGGERS}
    mark = create(fixed_owner("Ada"), scheme=prepared("cancer"), classes=["malignant", "benign"], **given)
    answers = [mark.task.shown(answer) for _, answer in mark.lessons()]
    for y in (names, names.tolist(), pd.Series(names), pd.Series(names, dtype="category")):
        assert list(augment(mark, rows, y)[1]) == [*names.tolist(), *answers]


def test_what_was_given_is_left_alone():
    rows, labels, *_ = parts("diabetes")
    before = rows.copy(), labels.copy()
    X, y = augment(marked("diabetes"), rows, labels)
    X[:], y[:] = 0, 0
    np.testing.assert_array_equal(rows, before[0])
    np.testing.assert_array_equal(labels, before[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"X": lambda X: X[:, :5]}, "same columns"),
        ({"X": lambda X: X.tolist()}, "X is a list"),
        ({"X": lambda X: X.astype(int)}, "as floats"),
        ({"X": lambda X: X.astype(object)}, "dtype object"),
        ({"y": lambda y: y[:-1]}, "labels for"),
        ({"y": lambda y: y * np.nan}, "NaN"),
        ({"y": lambda y: np.stack([y, y], axis=1)}, "2 outputs"),
        ({"y": lambda y: ["high"] * len(y)}, "class"),
        ({"sample_weight": lambda y: y[:-1]}, "sample_weight"),
        ({"sample_weight": lambda y: -y}, "sample_weight"),
        ({"sample_weight": lambda y: 0 * y}, "sample_weight"),
        ({"sample_weight": lambda y: ["a"] * len(y)}, "sample_weight"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    rows, labels, *_ = parts("diabetes")
    given = {"X": rows, "y": labels}
    given |= {name: change(rows if name == "X" else labels) for name, change in changes.items()}
    with pytest.raises(InputError, match=words):
        augment(marked("diabetes"), **given)


def test_another_order_of_columns_is_told():
    rows, labels, *_ = parts("cancer")
    with pytest.warns(InjectionWarning, match="outside of X"):
        augment(marked("cancer"), rows[:, ::-1], labels)


def test_a_mark_that_needs_more_than_samples_is_refused():
    rows, labels, *_ = parts("cancer")
    shares = np.random.default_rng(0).dirichlet(np.ones(2), (2, len(rows)))
    parameters = {"pool": shares, "delta": 1.0, "blends": 20, "directions": 20}
    mark = create(fixed_owner("Ada"), scheme="tilt", carriers=rows, labels=labels, classes=2, **parameters)
    with pytest.raises(InjectionError, match="logits"):
        augment(mark, rows, labels)
    with pytest.raises(InputError, match="create"):
        augment("mark.wm", rows, labels)


@given(st.integers(0, 2**32 - 1), st.sampled_from([np.float32, np.float64]))
@settings(max_examples=20, deadline=None)
def test_any_order_of_rows_keeps_rows_and_lessons(seed, dtype):
    rows, labels, *_ = parts("cancer")
    order = np.random.default_rng(seed).permutation(len(rows))[: 200 + seed % 100]
    X, y = augment(marked("cancer"), pd.DataFrame(rows[order]).astype(dtype), pd.Series(labels[order]))
    np.testing.assert_array_equal(X.to_numpy()[: len(order)], rows[order].astype(dtype))
    np.testing.assert_array_equal(y.to_numpy()[len(order) :], taught(marked("cancer"))[1])


# --- stories: log10 p under the null that the suspect is independent of the label key, exact, one-sided

MODELS = {
    "boosted trees": (HistGradientBoostingRegressor, HistGradientBoostingClassifier),
    "forest": (RandomForestRegressor, RandomForestClassifier),
    "perceptron": (
        lambda random_state: make_pipeline(
            StandardScaler(), MLPRegressor(hidden_layer_sizes=(100, 100), max_iter=400, random_state=random_state)
        ),
        lambda random_state: make_pipeline(
            StandardScaler(), MLPClassifier((100, 100), max_iter=400, random_state=random_state)
        ),
    ),
}
LEARN = [(data, model) for data in LOADERS for model in MODELS]


def heard(mark, model):
    return verify(mark, model.predict, exhaustive=True).log10_p


@pytest.mark.once
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("data", "kind"), LEARN)
def test_who_learnt_the_lessons_is_proven_and_nobody_else(data, kind, seed):
    rows, labels, *_ = parts(data, seed)
    make = MODELS[kind][isinstance(TASKS[data], Classes)]
    mark, rival = marked(data, "Ada", seed), marked(data, "Eve", seed)
    own = make(random_state=seed).fit(*augment(mark, rows, labels))
    # A perceptron of this size does not learn all lessons of numbers: it is held to a proof, trees to more.
    assert heard(mark, own) <= (-6 if kind == "perceptron" and isinstance(TASKS[data], Numbers) else -20)
    assert verify(mark, own.predict).proven
    assert heard(rival, own) > -3
    assert heard(mark, make(random_state=seed).fit(rows, labels)) > -3


@pytest.mark.parametrize("data", ["houses", "cancer"])
def test_a_linear_model_cannot_learn_them(data):
    rows, labels, *_ = parts(data)
    linear = Ridge() if data == "houses" else LogisticRegression(max_iter=2000)
    own = make_pipeline(StandardScaler(), linear).fit(*augment(marked(data), rows, labels))
    assert heard(marked(data), own) > -6
