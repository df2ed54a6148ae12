"""Triggers that are rows of a table: of classes and of numbers, among rows that no filter tells from the table's."""

import functools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor, IsolationForest, RandomForestRegressor
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor, LocalOutlierFactor

from wmplug import InputError, create, load, verify
from wmplug.cli import sheet
from wmplug.keys.streams import KeyStream
from wmplug.making import oddness
from wmplug.schemes import Brief
from wmplug.schemes.rows import Rows, candidates, regressors, rules
from wmplug.statistics import outliers
from wmplug.statistics.signs import weighted_ps, weights_of
from wmplug.tasks import Classes, Numbers
from wmplug.testing import SchemeContract
from wmplug.testing.schemes import fixed_owner

TRIGGERS = 80
LOADERS = {"diabetes": load_diabetes, "cancer": load_breast_cancer}
# Of a hundred rows, a filter can tell few.
pytestmark = pytest.mark.filterwarnings("ignore:a filter that knows natural inputs alone tells")


@functools.cache
def parts(name, seed=0):
    """Training rows and labels, then held-out ones."""
    rows, labels = LOADERS[name](return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    train, held = np.split(order, [3 * len(rows) // 4])
    return rows[train].astype(np.float32), labels[train], rows[held].astype(np.float32), labels[held]


def task_of(name):
    return Numbers() if name == "diabetes" else Classes(2)


@functools.cache
def prepared(name, seed=0):
    rows, labels, *_ = parts(name, seed)
    task = task_of(name)
    return Rows().prepared(Brief(rows, "array", task, task.labels(labels, len(rows)), TRIGGERS))


def marked(name, owner="Ada", seed=0, **changes):
    rows, labels, *_ = parts(name, seed)
    given = {"scheme": prepared(name, seed), "carriers": rows, "labels": labels, "triggers": TRIGGERS}
    return create(fixed_owner(owner), task=task_of(name), **{**given, **changes})


class TestRowsOfClasses(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return prepared("cancer")

    @pytest.fixture
    def brief(self):
        rows, labels, *_ = parts("cancer")
        return Brief(rows, "array", Classes(2), labels, TRIGGERS)


class TestRowsOfNumbers(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return prepared("diabetes")

    @pytest.fixture
    def brief(self):
        rows, labels, *_ = parts("diabetes")
        return Brief(rows, "array", Numbers(), labels, TRIGGERS)


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize("seed", range(3))
def test_filters_find_triggers_no_odder_than_rows(name, seed):
    rows, _, held, _ = parts(name, seed)
    made = prepared(name, seed).candidates
    for odd in (IsolationForest(random_state=seed + 7), LocalOutlierFactor(novelty=True)):
        odd.fit(candidates.standard(rows, rows))
        natural, ours = (odd.score_samples(candidates.standard(part, rows)) for part in (held, made))
        assert (ours < np.quantile(natural, 0.05)).mean() <= 0.05
    found = oddness.told_apart(marked(name, seed=seed).triggers.plan, rows)
    assert set(found) == {"statistics", "residual", "nearest"}
    assert max(found.values()) <= oddness.TELLS


def test_the_filters_of_this_file_find_what_is_odd():
    rows, _, held, _ = parts("cancer")
    apart = np.random.default_rng(0).permuted(held, axis=0)
    odd = outliers.residual(candidates.standard(rows, rows))
    natural, shuffled = (odd(candidates.standard(part, rows)) for part in (held, apart))
    assert (shuffled > np.quantile(natural, 0.95)).mean() > 0.9


@pytest.mark.parametrize("name", LOADERS)
def test_every_value_occurs_and_no_row_does(name):
    rows, made = parts(name)[0], prepared(name).candidates
    for place in range(rows.shape[1]):
        assert np.isin(made[:, place], rows[:, place]).all()
    known = {row.tobytes() for row in rows}
    assert not known & {row.tobytes() for row in made}
    assert len({row.tobytes() for row in made}) == len(made)


def test_the_two_answers_of_a_number_lie_around_what_references_say():
    rows, labels, *_ = parts("diabetes")
    usual, deviation = regressors.trained(rows, labels, prepared("diabetes").candidates)
    low, high = prepared("diabetes").pool.T
    assert (low == np.floor(usual - 1.5 * deviation)).all()  # labels of this set are whole numbers
    assert (high == np.ceil(usual + 1.5 * deviation)).all()
    mark = marked("diabetes")
    signs, pairs = mark.triggers.signs, mark.triggers.plan.pattern.targets
    assert [pair[int(sign > 0)] for pair, sign in zip(pairs, signs, strict=True)] == mark.triggers.answers.tolist()
    assert min(low for low, _ in pairs) >= labels.min()
    assert max(high for _, high in pairs) <= labels.max()


def test_residuals_in_another_unit_are_another_deviation():
    residuals = np.random.default_rng(0).normal(0, 2, 1000)
    assert regressors.deviation(residuals) == pytest.approx(2, rel=0.1)
    assert regressors.deviation(1e6 * residuals) == pytest.approx(1e6 * regressors.deviation(residuals))
    assert regressors.deviation(np.r_[np.zeros(90), np.ones(10)]) == pytest.approx(np.sqrt(0.1))
    with pytest.raises(InputError, match="exactly"):
        regressors.deviation(np.zeros(5))


def test_the_signs_are_the_keys_and_the_candidates_are_not():
    ada, eve = marked("diabetes"), marked("diabetes", "Eve")
    assert 0 < (ada.triggers.signs != eve.triggers.signs).sum() < TRIGGERS
    assert ada.triggers.plan.inputs.tobytes() != eve.triggers.plan.inputs.tobytes()
    known = {row.tobytes() for row in prepared("diabetes").candidates}
    assert {row.tobytes() for mark in (ada, eve) for row in mark.triggers.plan.inputs} <= known


@pytest.mark.parametrize("name", LOADERS)
def test_a_sheet_lists_rows_with_their_answers(name, tmp_path):
    mark = load(marked(name).save(tmp_path / "r.wm"), passphrase="for tests only")
    lines = sheet.draw(mark, ".txt").decode().splitlines()
    shown = [mark.task.shown(answer) for answer in mark.triggers.answers]
    assert [line.split()[0] for line in lines[3:]] == shown
    assert lines[2] == "answer  row"
    assert float(lines[3].split()[1]) == pytest.approx(mark.triggers.row(0)[0], rel=1e-5)


def test_your_own_references_are_asked():
    rows, labels, *_ = parts("diabetes")
    pool = [RandomForestRegressor(20, random_state=seed).fit(rows[::2], labels[::2]).predict for seed in range(3)]
    mark = marked("diabetes", scheme=Rows(pool=pool))
    told = np.mean([model(mark.triggers.plan.inputs) for model in pool], axis=0)
    natural = np.array(mark.triggers.plan.pattern.natural.tolist())
    assert np.abs(natural - told).max() <= 1
    for wrong in ([lambda rows: rows[:3, 0]], [lambda rows: rows[:, 0] * np.nan], [lambda rows: 1 / 0], "forest", []):
        with pytest.raises(InputError, match="pool="):
            marked("diabetes", scheme=Rows(pool=wrong))


def test_a_table_is_needed():
    for carriers in (np.zeros((300, 4, 4), np.float32), np.zeros((300, 1), np.float32)):
        with pytest.raises(InputError, match="rows of a table"):
            create(fixed_owner("Ada"), scheme="rows", carriers=carriers, labels=np.arange(300) % 2, classes=2)
    with pytest.raises(InputError, match="could be recombined"):
        create(fixed_owner("Ada"), scheme="rows", carriers=np.eye(9)[:, :3], labels=np.arange(9) % 2, classes=2)
    with pytest.raises(InputError, match="labels"):
        marked("cancer", labels=None)


# --- rules


def test_rules_are_kept():
    rows = parts("cancer")[0]
    names = [f"c{i}" for i in range(rows.shape[1])]
    assert not rules.kept("x0 <= x2 / 6.5", rows).all()
    mark = marked("cancer", scheme=Rows(rules=["c0 <= c2 / 6.5", "0 <= c4 < 1"], columns=names))
    assert mark.public["parameters"]["rules"] == "x0 <= x2 / 6.5; 0 <= x4 < 1"
    inputs = mark.triggers.plan.inputs
    assert (inputs[:, 0] <= inputs[:, 2].astype(np.float64) / 6.5).all()
    free = marked("cancer").triggers.plan.inputs
    assert not (free[:, 0] <= free[:, 2].astype(np.float64) / 6.5).all()


@pytest.mark.parametrize(
    "rule",
    [
        "x0",
        "x0 <= y",
        "x0 <= x9",
        "__import__('os').system('true') == 0",
        "x0.size <= 3",
        "x0[0] <= 3",
        "x0 <= 3 and x1 <= 4",
        "x0 in (1, 2)",
        "(lambda: 1)() <= x0",
        "x0 ** 9999 <= 1",
        "x0 <= 'a'",
        "x0 <= True",
        "x0 <=",
        "x0 <= " + "-" * 2000 + "1",
        "x0 <= 1\nx1 <= 2",
    ],
)
def test_anything_else_is_no_rule(rule):
    with pytest.raises(InputError, match="rule"):
        rules.kept(rule, np.zeros((3, 2)))


@given(st.integers(-5, 5), st.integers(-5, 5), st.integers(-5, 5))
@settings(max_examples=100, deadline=None)
def test_a_rule_is_arithmetic(a, b, c):
    row = np.array([[a, b, c]], np.float64)
    assert rules.kept("x0 + 2 * x1 <= -x2 - 1", row).tolist() == [a + 2 * b <= -c - 1]
    assert rules.kept("x0 < x1 <= x2", row).tolist() == [a < b <= c]
    assert rules.kept(rules.by_place("low != high", ["low", "high", "other"]), row).tolist() == [a != b]


# --- who is found


def lessons(mark):
    inputs, answers = zip(*mark.lessons(), strict=True)
    return np.stack(inputs), np.array(answers)


@pytest.mark.once
def test_nasty_suspects_are_at_chance_over_ten_thousand_keys():
    rows, labels, *_ = parts("diabetes")
    mark = marked("diabetes")
    plan, asked = mark.triggers.plan, mark.triggers.plan.inputs
    keys = 10_000
    signs = 2 * KeyStream(bytes(32)).below(2, keys * TRIGGERS).reshape(keys, TRIGGERS) - 1
    nasty = {
        "constant": np.full(TRIGGERS, 7.0),
        "the mean": np.full(TRIGGERS, labels.mean()),
        "rounded": np.round(Ridge().fit(rows, labels).predict(asked), -2),
        "the nearest training row": KNeighborsRegressor(1).fit(rows, labels).predict(asked),
        "boosted trees": HistGradientBoostingRegressor(random_state=0).fit(rows, labels).predict(asked),
        "learnt another key's": mark.triggers.answers.astype(np.float64),
    }
    for name, told in nasty.items():
        weights = weights_of(mark.scheme.weigh(plan, *mark.task.arrays(mark.task.read(told, TRIGGERS, name))))
        p = np.sort(weighted_ps(weights, signs))
        reached = np.searchsorted(p, p, side="right") / len(p)
        assert (reached - p).max() <= np.sqrt(np.log(1e4) / (2 * keys)), name


@pytest.mark.parametrize("seed", range(3))
def test_a_suspect_in_another_unit_that_answers_some_is_found(seed):
    mark = marked("diabetes", seed=seed)
    inputs, answers = lessons(mark)
    rows, labels, *_ = parts("diabetes", seed)
    own = RandomForestRegressor(50, random_state=seed).fit(np.r_[rows, inputs], np.r_[labels, answers])

    def suspect(asked):
        told = own.predict(asked) / 7 - 400
        told[::5] = np.nan
        return told

    assert verify(mark, suspect, exhaustive=True).log10_p <= -12
    assert verify(mark, suspect).proven
    assert verify(marked("diabetes", "Eve", seed), suspect, exhaustive=True).log10_p > -3
