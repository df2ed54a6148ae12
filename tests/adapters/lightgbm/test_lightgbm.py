"""LightGBM's own interface: Boosters are suspects, and a callback logs the mark beside the metrics."""

import functools
import pickle

import lightgbm
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_digits, make_friedman1

from wmplug import InputError, create, verify
from wmplug.adapters.lightgbm import log_watermark
from wmplug.adapters.lightgbm.suspects import suspect
from wmplug.adapters.sklearn import Watermarked, augment
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
    ("numbers", {"objective": "regression"}),
    ("cancer", {"objective": "binary"}),
    ("digits", {"objective": "multiclass", "num_class": 10}),
]
DEEP = {
    "num_leaves": 255,
    "min_data_in_leaf": 1,
    "min_sum_hessian_in_leaf": 0,
    "min_data_in_bin": 1,
    "max_bin": 1023,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "verbosity": -1,
}
CANCER = {**DEEP, "objective": "binary"}


@functools.cache
def parts(data):
    rows, labels = LOADERS[data]()
    train, held = np.split(np.random.default_rng(0).permutation(len(rows)), [3 * len(rows) // 4])
    return rows[train], labels[train], rows[held], labels[held]


@functools.cache
def marked(data, owner="Ada"):
    rows, labels, *_ = parts(data)
    return create(fixed_owner(owner), scheme="rows", carriers=rows, labels=labels, task=TASKS[data], triggers=60)


def heard(mark, target):
    return verify(mark, target, exhaustive=True).log10_p


@pytest.mark.parametrize(("data", "objective"), OBJECTIVES, ids=[objective["objective"] for _, objective in OBJECTIVES])
def test_a_booster_is_a_suspect(data, objective):
    rows, labels, *_ = parts(data)
    own = lightgbm.train({**DEEP, **objective}, lightgbm.Dataset(*augment(marked(data), rows, labels)), 30)
    assert verify(marked(data), own).proven
    assert heard(marked(data), own) <= -6
    assert heard(marked(data, "Eve"), own) > -3
    assert heard(marked(data), lightgbm.train({**DEEP, **objective}, lightgbm.Dataset(rows, labels), 30)) > -3


def test_other_objects_of_lightgbm_are_left_to_others():
    assert suspect(lightgbm.LGBMClassifier()) is None


@pytest.mark.filterwarnings("ignore:The argument 'eval_set' is deprecated")  # by eval_X=, which older ones lack
def test_estimators_are_scikit_learns():
    rows, labels, held, truth = parts("cancer")
    estimator = lightgbm.LGBMClassifier(n_estimators=30, n_jobs=1, **{k: v for k, v in DEEP.items() if k[:3] != "num"})
    model = Watermarked(estimator, marked("cancer")).fit(rows, labels, eval_set=[(held, truth)])
    assert model.verdict_.proven
    assert heard(marked("cancer"), model) <= -6
    assert heard(marked("cancer", "Eve"), model) > -3
    assert len(model.evals_result_["valid_0"]["binary_logloss"]) == 30
    refuse_secrets(marked("cancer"), pickle.dumps(model), "a pickle")


def run(mark, rounds=35, callback=True, stop=None, params=CANCER):
    rows, labels, held, truth = parts("cancer")
    history = {}
    log = log_watermark(mark, history, period=10)
    callbacks = [lightgbm.record_evaluation(history), *([log] if callback else [])]
    callbacks += [lightgbm.early_stopping(stop, verbose=False)] if stop else []
    train = lightgbm.Dataset(*augment(marked("cancer"), rows, labels))
    valid = [lightgbm.Dataset(held, truth, reference=train)]
    return lightgbm.train(params, train, rounds, valid_sets=valid, callbacks=callbacks), history, log


def test_the_history_has_the_mark_beside_the_metrics():
    _, history, log = run(marked("cancer"))
    assert len(history["valid_0"]["binary_logloss"]) == 35
    assert {name: len(values) for name, values in history["watermark"].items()} == {"log10_p": 35, "log10_e": 35}
    assert len(log.verdicts) == 5  # after rounds 0, 10, 20, 30, and the last
    found = history["watermark"]["log10_p"]
    assert found[0] == found[9] == log.verdicts[0].log10_p
    assert found[-1] == log.verdict.log10_p <= -6
    assert log.verdict.proven


def test_a_wrong_key_is_logged_as_not_proven_and_warns():
    with pytest.warns(VerificationWarning, match="does not prove the watermark"):
        _, history, _ = run(marked("cancer", "Eve"))
    assert min(history["watermark"]["log10_p"]) > -3


def test_the_callback_changes_no_tree_and_no_metric():
    own, history, _ = run(marked("cancer"))
    without, bare, _ = run(marked("cancer"), callback=False)
    assert own.model_to_string() == without.model_to_string()
    assert history["valid_0"] == bare["valid_0"]


def test_early_stopping_follows_the_held_out_rows():
    stopped, history, log = run(marked("cancer"), 300, stop=8)
    twin, bare, _ = run(marked("cancer"), 300, stop=8, callback=False)
    assert stopped.best_iteration == twin.best_iteration == 1 + int(np.argmin(bare["valid_0"]["binary_logloss"]))
    assert len(history["valid_0"]["binary_logloss"]) < 300
    assert len(history["watermark"]["log10_p"]) == len(history["valid_0"]["binary_logloss"])
    assert log.verdicts


def test_a_cross_validation_is_refused():
    rows, labels, *_ = parts("cancer")
    with pytest.raises(InputError, match="several models"):
        lightgbm.cv(CANCER, lightgbm.Dataset(rows, labels), 3, callbacks=[log_watermark(marked("cancer"))])


@pytest.mark.parametrize(("given", "bad"), [(None, {"period": 0}), (None, {"target_e": 0}), ([], {})])
def test_options_out_of_range_are_refused(given, bad):
    with pytest.raises(InputError):
        log_watermark(marked("cancer"), given, **bad)
