"""Fitted estimators are asked as they stand: `verify(mark, estimator)`."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from wmplug import SuspectError, create, verify
from wmplug.adapters.sklearn import augment
from wmplug.adapters.sklearn.suspects import EstimatorSuspect, suspect
from wmplug.testing.schemes import fixed_owner

ROWS, LABELS = load_digits(return_X_y=True)
TREES = ExtraTreesClassifier(20, random_state=0)


@pytest.fixture(scope="module")
def mark():
    return create(fixed_owner("Ada"), scheme="rows", carriers=ROWS, labels=LABELS, classes=10, triggers=40)


@pytest.fixture(scope="module")
def own(mark):
    return clone(TREES).fit(*augment(mark, ROWS, LABELS))


def test_an_estimator_and_a_pipeline_are_suspects(mark, own):
    assert verify(mark, own).proven
    assert verify(mark, own, exhaustive=True).log10_p <= -6
    steps = make_pipeline(StandardScaler(), clone(TREES)).fit(*augment(mark, ROWS, LABELS))
    assert verify(mark, steps, exhaustive=True).log10_p <= -6
    assert verify(mark, clone(TREES).fit(ROWS, LABELS), exhaustive=True).log10_p > -3
    rival = create(fixed_owner("Eve"), scheme="rows", carriers=ROWS, labels=LABELS, classes=10, triggers=40)
    assert verify(rival, own, exhaustive=True).log10_p > -3


def test_scores_are_asked_where_there_are_any(own):
    np.testing.assert_array_equal(suspect(own).answer(list(ROWS[:9])), own.predict_proba(ROWS[:9]))
    margins = make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(ROWS, LABELS)
    np.testing.assert_array_equal(suspect(margins).answer(list(ROWS[:9])), margins.predict(ROWS[:9]))


def test_a_class_that_the_model_never_saw_has_no_share(mark):
    known = LABELS != 3
    some = clone(TREES).fit(ROWS[known], LABELS[known])
    told = EstimatorSuspect(some, task=mark.task).answer(list(ROWS[:50]))
    assert told.shape == (50, 10)
    assert (told[:, 3] == 0).all()
    np.testing.assert_array_equal(np.delete(told, 3, axis=1), some.predict_proba(ROWS[:50]))
    np.testing.assert_array_equal(suspect(some).answer(list(ROWS[:50])), some.predict(ROWS[:50]))


def test_classes_in_floats_are_classes(mark):
    rows, labels = augment(mark, ROWS, LABELS)
    assert verify(mark, clone(TREES).fit(rows, labels.astype(float))).proven
    margins = make_pipeline(StandardScaler(), LinearSVC(random_state=0)).fit(rows, labels.astype(float))
    told = suspect(margins).answer(list(ROWS[:9]))
    assert told.dtype == np.int64
    np.testing.assert_array_equal(told, margins.predict(ROWS[:9]))


def test_names_of_columns_are_given_back(mark):
    frame = pd.DataFrame(ROWS, columns=[f"p{i}" for i in range(64)])
    named = clone(TREES).fit(*augment(mark, frame, LABELS))
    assert verify(mark, named).proven  # scikit-learn warns of names that are missing, and a warning is an error here


def test_one_that_is_not_fitted_says_so(mark):
    with pytest.raises(SuspectError, match="call fit first"):
        verify(mark, clone(TREES))


def test_what_predicts_nothing_is_left_to_others():
    assert suspect(StandardScaler()) is None
