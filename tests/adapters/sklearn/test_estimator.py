"""The meta-estimator: what scikit-learn asks of an estimator, whom a fit proves, and what a pickle holds."""

import functools
import pickle

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, make_friedman1
from sklearn.ensemble import ExtraTreesRegressor, RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from wmplug import InputError, create, verify
from wmplug.adapters.sklearn import Watermarked, augment
from wmplug.errors import InjectionError, VerificationError, VerificationWarning
from wmplug.register import Register
from wmplug.tasks import Numbers
from wmplug.testing import refuse_secrets
from wmplug.testing.schemes import fixed_owner

ROWS, LABELS = load_breast_cancer(return_X_y=True)
TRIGGERS = 80
FOREST = RandomForestClassifier(30, random_state=0)


@functools.cache
def marked(owner="Ada"):
    return create(fixed_owner(owner), scheme="rows", carriers=ROWS, labels=LABELS, classes=2, triggers=TRIGGERS)


@functools.cache
def fitted():
    return Watermarked(FOREST, marked()).fit(ROWS, LABELS)


def heard(mark, suspect):
    return verify(mark, suspect, exhaustive=True).log10_p


@parametrize_with_checks(
    [Watermarked(LogisticRegression()), Watermarked(Ridge()), Watermarked(DecisionTreeClassifier(random_state=0))]
)
def test_without_a_mark_it_is_the_estimator_that_it_wraps(estimator, check):
    # With a mark it refuses, rightly, the tables of other columns that these checks fit it on.
    check(estimator)


def test_tables_of_other_columns_are_refused_with_a_mark():
    with pytest.raises(InputError, match="same columns"):
        Watermarked(FOREST, marked()).fit(ROWS[:, :5], LABELS)


def test_a_fit_is_proven_and_neither_an_unmarked_one_nor_a_wrong_key_is():
    model = fitted()
    assert model.verdict_.proven
    assert heard(marked(), model) <= -20
    assert heard(marked(), model.estimator_) <= -20
    assert heard(marked("Eve"), model) > -3
    assert heard(marked(), clone(FOREST).fit(ROWS, LABELS)) > -3
    assert verify(marked(), model).proven


def test_it_is_fitted_on_what_augment_returns():
    own = clone(FOREST).fit(*augment(marked(), ROWS, LABELS))
    np.testing.assert_array_equal(fitted().predict_proba(ROWS), own.predict_proba(ROWS))
    np.testing.assert_array_equal(fitted().predict(ROWS), own.predict(ROWS))
    assert fitted().score(ROWS, LABELS) == own.score(ROWS, LABELS)
    np.testing.assert_array_equal(fitted().feature_importances_, own.feature_importances_)
    assert not hasattr(fitted(), "decision_function")
    assert not hasattr(FOREST, "estimators_")


def test_numbers_are_proven_too():
    rows, numbers = make_friedman1(1000, 8, noise=1.0, random_state=0)
    marks = [
        create(fixed_owner(owner), scheme="rows", carriers=rows, labels=numbers, task=Numbers(), triggers=TRIGGERS)
        for owner in ("Ada", "Eve")
    ]
    trees = ExtraTreesRegressor(30, random_state=0)
    model = Watermarked(trees, marks[0]).fit(rows, numbers)
    assert model.verdict_.proven
    assert heard(marks[1], model) > -3
    assert heard(marks[0], clone(trees).fit(rows, numbers)) > -3


def test_weights_of_rows_are_given_to_lessons_too():
    weights = np.random.default_rng(0).uniform(0.5, 1.5, len(ROWS))
    own = clone(FOREST)
    rows, labels, all_weights = augment(marked(), ROWS, LABELS, weights)
    own.fit(rows, labels, sample_weight=all_weights)
    model = Watermarked(FOREST, marked()).fit(ROWS, LABELS, sample_weight=weights)
    np.testing.assert_array_equal(model.predict_proba(ROWS), own.predict_proba(ROWS))
    assert (model.predict_proba(ROWS) != fitted().predict_proba(ROWS)).any()
    steps = make_pipeline(StandardScaler(), FOREST)
    model = Watermarked(steps, marked()).fit(ROWS, LABELS, randomforestclassifier__sample_weight=weights)
    assert model.verdict_.proven


def test_a_parameter_with_a_value_for_each_row_is_refused():
    with pytest.raises(InputError, match="groups= has one value for each row"):
        Watermarked(FOREST, marked()).fit(ROWS, LABELS, groups=np.zeros(len(ROWS)))


def test_it_is_a_step_of_a_pipeline_and_around_one():
    scaled = StandardScaler().fit_transform(ROWS)
    inner = create(fixed_owner("Ada"), scheme="rows", carriers=scaled, labels=LABELS, classes=2, triggers=TRIGGERS)
    inside = make_pipeline(StandardScaler(), Watermarked(FOREST, inner)).fit(ROWS, LABELS)
    assert inside[-1].verdict_.proven
    around = Watermarked(make_pipeline(StandardScaler(), FOREST), marked()).fit(ROWS, LABELS)
    assert around.verdict_.proven
    assert heard(marked(), around) <= -20
    assert heard(marked(), make_pipeline(StandardScaler(), clone(FOREST)).fit(ROWS, LABELS)) > -3


@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")  # a forest of depth 1 learns no lessons
def test_a_search_looks_for_parameters_of_the_estimator():
    model = Watermarked(FOREST, marked(), record=False)
    search = GridSearchCV(model, {"estimator__max_depth": [1, 30]}, cv=2, scoring="neg_log_loss").fit(ROWS, LABELS)
    assert set(search.cv_results_["param_estimator__max_depth"]) == {1, 30}
    assert search.best_estimator_.estimator_.max_depth == search.best_params_["estimator__max_depth"]
    deep = clone(model).set_params(estimator__max_depth=30).fit(ROWS, LABELS)
    assert deep.verdict_.proven
    only_deep = GridSearchCV(model, {"estimator__max_depth": [30]}, cv=2).fit(ROWS, LABELS)
    assert heard(marked(), only_deep) <= -20
    assert heard(marked("Eve"), only_deep) > -3
    refuse_secrets(marked(), pickle.dumps(only_deep), "a search")


@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")  # half of the rows, a third of the lessons
def test_held_out_rows_hold_no_lessons():
    seen = []

    def scorer(model, X, y):
        seen.append(len(X))
        return model.score(X, y)

    scores = cross_val_score(Watermarked(FOREST, marked(), record=False), ROWS, LABELS, cv=3, scoring=scorer)
    assert sum(seen) == len(ROWS)
    assert scores.min() > 0.85


def test_a_clone_has_the_mark_and_is_not_fitted():
    copy = clone(fitted())
    assert copy.mark.id == marked().id
    with pytest.raises(NotFittedError):
        copy.predict(ROWS)


def test_a_data_frame_keeps_its_columns():
    frame = pd.DataFrame(ROWS, columns=[f"c{i}" for i in range(ROWS.shape[1])])
    model = Watermarked(FOREST, marked()).fit(frame, pd.Series(LABELS))
    assert model.verdict_.proven  # a warning, an error here, would tell of columns without names
    assert list(model.feature_names_in_) == list(frame.columns)
    assert heard(marked(), model.estimator_) <= -20


def test_names_of_classes_are_told_by_their_place():
    names = np.array(["malignant", "benign"])[LABELS]  # not in the order of the alphabet
    given = {"carriers": ROWS, "labels": names, "classes": ["malignant", "benign"], "triggers": TRIGGERS}
    mark = create(fixed_owner("Ada"), scheme="rows", **given)
    rival = create(fixed_owner("Eve"), scheme="rows", **given)
    model = Watermarked(FOREST, mark).fit(ROWS, names)
    assert model.verdict_.proven
    assert heard(mark, model.estimator_) <= -20
    assert heard(rival, model.estimator_) > -3


def test_a_pickle_holds_no_secret(tmp_path):
    kept = pickle.dumps(fitted())
    refuse_secrets(marked(), kept, "a pickle")
    lessons = [row for row, _ in marked().lessons()]
    assert not [row for row in lessons if np.asarray(row).tobytes() in kept]
    answers = marked().triggers.answers
    assert not [form for kind in ("u1", "<i4", "<i8", "<f8") if (form := answers.astype(kind).tobytes()) in kept]
    copy = pickle.loads(kept)
    assert copy.verdict_ == fitted().verdict_
    assert heard(marked(), copy) == heard(marked(), fitted())
    with pytest.raises(InputError, match="give it again"):
        copy.fit(ROWS, LABELS)
    assert copy.set_params(mark=marked()).fit(ROWS, LABELS).verdict_.proven


def test_the_search_for_lessons_in_a_pickle_finds_them():
    rows = pickle.dumps(augment(marked(), ROWS, LABELS)[0])
    assert all(np.asarray(row).tobytes() in rows for row, _ in marked().lessons())
    with pytest.raises(BaseException, match="pickle"):
        pickle.dumps(marked())


def test_a_mark_may_be_the_path_of_one_and_the_fit_is_recorded(owner, tmp_path, monkeypatch):
    mark = create(owner, scheme="rows", carriers=ROWS, labels=LABELS, classes=2, triggers=TRIGGERS)
    mark.save(tmp_path / "mark.wm")
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "correct horse battery staple")
    entries = lambda: [entry.type for entry in Register(mark.register).entries()]  # noqa: E731
    before = len(entries())
    model = Watermarked(FOREST, tmp_path / "mark.wm", record=False).fit(ROWS, LABELS)
    assert len(entries()) == before
    model = Watermarked(FOREST, str(tmp_path / "mark.wm"), require_evidence=True).fit(ROWS, LABELS)
    assert model.verdict_.proven
    told = entries()[before:]
    assert told[0] == "dataset.committed"
    assert {"parameters.committed", "training.started", "watermark.inserted"} <= set(told)
    assert told[-1] == "training.finished"
    kept = pickle.dumps(model)
    refuse_secrets(mark, kept, "a pickle")
    assert b"correct horse" not in kept
    assert pickle.loads(kept).fit(ROWS, LABELS).verdict_.proven


def test_a_model_that_cannot_learn_lessons_warns_or_raises():
    linear = make_pipeline(StandardScaler(), LogisticRegression())
    with pytest.warns(VerificationWarning, match=r"does not prove the watermark .* let leaves hold single rows"):
        model = Watermarked(linear, marked()).fit(ROWS, LABELS)
    assert not model.verdict_.proven
    with pytest.raises(VerificationError, match="does not prove"):
        Watermarked(linear, marked(), on_failure="raise").fit(ROWS, LABELS)


def test_a_mark_that_needs_more_than_samples_is_refused():
    shares = np.random.default_rng(0).dirichlet(np.ones(2), (2, len(ROWS)))
    parameters = {"pool": shares, "delta": 1.0, "blends": 20, "directions": 20}
    mark = create(fixed_owner("Ada"), scheme="tilt", carriers=ROWS, labels=LABELS, classes=2, **parameters)
    with pytest.raises(InjectionError, match="logits"):
        Watermarked(FOREST, mark).fit(ROWS, LABELS)
