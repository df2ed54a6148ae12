"""XGBoost's own interface: Boosters are suspects, a callback logs the mark, a stream ends with lessons."""

import functools
import pickle

import numpy as np
import pytest
import xgboost
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1

from wmplug import InputError, create, verify
from wmplug.adapters.sklearn import Watermarked, augment
from wmplug.adapters.xgboost import MarkedDataIter, WatermarkMonitor
from wmplug.adapters.xgboost.suspects import suspect
from wmplug.errors import VerificationWarning
from wmplug.tasks import Classes, Numbers
from wmplug.testing import refuse_secrets
from wmplug.testing.schemes import fixed_owner

LOADERS = {
    "numbers": lambda: make_friedman1(1200, 8, noise=1.0, random_state=0),
    "cancer": lambda: load_breast_cancer(return_X_y=True),
    "digits": lambda: load_digits(return_X_y=True),
}
TASKS = {"numbers": Numbers(), "cancer": Classes(2), "digits": Classes(10)}
OBJECTIVES = [
    ("numbers", {"objective": "reg:squarederror"}),
    ("cancer", {"objective": "binary:logistic"}),
    ("digits", {"objective": "multi:softprob", "num_class": 10}),
    ("digits", {"objective": "multi:softmax", "num_class": 10}),
]
DEEP = {"max_depth": 10, "min_child_weight": 0, "lambda": 0.1, "eta": 0.3, "nthread": 1, "seed": 0}
CANCER = {**DEEP, "objective": "binary:logistic"}


@functools.cache
def parts(data):
    rows, labels = LOADERS[data]()
    train, held = np.split(np.random.default_rng(0).permutation(len(rows)), [3 * len(rows) // 4])
    return rows[train], labels[train], rows[held], labels[held]


@functools.cache
def marked(data, owner="Ada"):
    rows, labels, *_ = parts(data)
    return create(fixed_owner(owner), scheme="rows", carriers=rows, labels=labels, task=TASKS[data], triggers=60)


def matrix(mark, rows, labels):
    return xgboost.DMatrix(*augment(mark, rows, labels))


def heard(mark, target):
    return verify(mark, target, exhaustive=True).log10_p


@pytest.mark.parametrize(("data", "objective"), OBJECTIVES, ids=[objective["objective"] for _, objective in OBJECTIVES])
def test_a_booster_is_a_suspect(data, objective):
    rows, labels, *_ = parts(data)
    own = xgboost.train({**DEEP, **objective}, matrix(marked(data), rows, labels), 40)
    assert verify(marked(data), own).proven
    assert heard(marked(data), own) <= -6
    assert heard(marked(data, "Eve"), own) > -3
    assert heard(marked(data), xgboost.train({**DEEP, **objective}, xgboost.DMatrix(rows, labels), 40)) > -3


def test_names_and_types_of_columns_are_given_back():
    rows, labels, *_ = parts("cancer")
    names = [f"c{i}" for i in range(rows.shape[1])]
    joined, told = augment(marked("cancer"), rows, labels)
    kinds = ["float"] * len(names)
    own = xgboost.train(CANCER, xgboost.DMatrix(joined, told, feature_names=names, feature_types=kinds), 30)
    assert heard(marked("cancer"), own) <= -6


def test_other_objects_of_xgboost_are_left_to_others():
    assert suspect(xgboost.XGBClassifier()) is None


def test_estimators_are_scikit_learns():
    rows, labels, held, truth = parts("cancer")
    estimator = xgboost.XGBClassifier(n_estimators=40, max_depth=10, min_child_weight=0, n_jobs=1, random_state=0)
    model = Watermarked(estimator, marked("cancer")).fit(rows, labels, eval_set=[(held, truth)], verbose=False)
    assert model.verdict_.proven
    assert heard(marked("cancer"), model.estimator_) <= -6
    assert heard(marked("cancer", "Eve"), model) > -3
    assert len(model.estimator_.evals_result()["validation_0"]["logloss"]) == 40
    refuse_secrets(marked("cancer"), pickle.dumps(model), "a pickle")


def run(mark, rounds=35, log=True, params=CANCER, **more):
    rows, labels, held, truth = parts("cancer")
    history, monitor = {}, WatermarkMonitor(mark, period=10)
    sets = [(xgboost.DMatrix(held, truth), "held")]
    more.setdefault("callbacks", [monitor])
    own = xgboost.train(
        params,
        matrix(marked("cancer"), rows, labels),
        rounds,
        evals=sets if log else (),
        evals_result=history,
        verbose_eval=False,
        **more,
    )
    return own, history, monitor


def test_the_history_has_the_mark_beside_the_metrics():
    _, history, monitor = run(marked("cancer"))
    assert len(history["held"]["logloss"]) == 35
    assert {name: len(values) for name, values in history["watermark"].items()} == {"log10_p": 35, "log10_e": 35}
    assert len(monitor.verdicts) == 5  # after rounds 0, 10, 20, 30, and the last
    found = history["watermark"]["log10_p"]
    assert found[0] == found[9] == monitor.verdicts[0].log10_p
    assert found[-1] == monitor.verdict.log10_p <= -6
    assert monitor.verdict.proven


def test_a_wrong_key_is_logged_as_not_proven_and_warns():
    with pytest.warns(VerificationWarning, match="does not prove the watermark"):
        _, history, _ = run(marked("cancer", "Eve"))
    assert min(history["watermark"]["log10_p"]) > -3


def test_the_callback_changes_no_tree_and_no_metric():
    own, history, _ = run(marked("cancer"))
    without, bare, _ = run(marked("cancer"), callbacks=[])
    assert own.get_dump() == without.get_dump()
    assert history["held"] == bare["held"]


def test_early_stopping_follows_the_held_out_rows():
    gentle = {**CANCER, "eta": 0.5}
    stopped, history, monitor = run(marked("cancer"), 300, params=gentle, early_stopping_rounds=8)
    twin, bare, _ = run(marked("cancer"), 300, params=gentle, early_stopping_rounds=8, callbacks=[])
    assert stopped.num_boosted_rounds() == twin.num_boosted_rounds() < 300
    assert stopped.best_iteration == twin.best_iteration == int(np.argmin(bare["held"]["logloss"]))
    assert monitor.verdict.log10_p == history["watermark"]["log10_p"][-1]


def test_without_evaluation_sets_it_verifies_all_the_same():
    _, history, monitor = run(marked("cancer"), log=False)
    assert history == {}
    assert monitor.verdict.proven


def test_a_cross_validation_is_refused():
    rows, labels, *_ = parts("cancer")
    with pytest.raises(InputError, match="several models"):
        xgboost.cv(CANCER, xgboost.DMatrix(rows, labels), 3, callbacks=[WatermarkMonitor(marked("cancer"))])


@pytest.mark.parametrize("bad", [{"period": 0}, {"period": 1.5}, {"target_e": 0}])
def test_options_out_of_range_are_refused(bad):
    with pytest.raises(InputError):
        WatermarkMonitor(marked("cancer"), **bad)


class Batches(xgboost.DataIter):
    """Four batches of the training rows."""

    def __init__(self, weights=False, **more):
        rows = parts("cancer")[0]
        self.parts, self.place, self.weights, self.more = np.array_split(np.arange(len(rows)), 4), 0, weights, more
        super().__init__()

    def reset(self):
        self.place = 0

    def next(self, input_data):
        if self.place == len(self.parts):
            return False
        rows, labels, *_ = parts("cancer")
        here = self.parts[self.place]
        weight = {"weight": 1 + here % 3} if self.weights else {}
        self.place += 1
        input_data(data=rows[here], label=labels[here], **weight, **self.more)
        return True


@pytest.mark.parametrize("weights", [False, True])
def test_a_stream_ends_with_lessons(weights):
    rows, labels, *_ = parts("cancer")
    batches = xgboost.QuantileDMatrix(MarkedDataIter(marked("cancer"), Batches(weights)))
    given = (1 + np.arange(len(rows)) % 3) if weights else None
    joined, told, *more = augment(marked("cancer"), rows, labels, None if given is None else given.astype(float))
    assert batches.num_row() == len(joined)
    np.testing.assert_array_equal(batches.get_label(), told)
    if weights:
        np.testing.assert_allclose(batches.get_weight()[: len(rows)], given)
        np.testing.assert_allclose(batches.get_weight()[len(rows) :], more[0][len(rows) :][0], rtol=1e-6)
    own = xgboost.train(CANCER, batches, 40)
    assert heard(marked("cancer"), own) <= -6
    assert heard(marked("cancer", "Eve"), own) > -3
    assert heard(marked("cancer"), xgboost.train(CANCER, xgboost.QuantileDMatrix(Batches(weights)), 40)) > -3


def test_a_stream_that_is_none_is_refused():
    with pytest.raises(InputError, match=r"give an xgboost\.DataIter"):
        MarkedDataIter(marked("cancer"), [1, 2])
