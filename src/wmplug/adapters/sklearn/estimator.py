"""A meta-estimator: whatever it wraps is fitted with the mark's lessons, verified, and recorded.

Watermarked(estimator, mark).fit(X, y, ...)
    the register: what is trained on what
    X, y, sample_weight  <- the mark's lessons after them
    clone(estimator).fit(X, y, ...)
    verify               -> verdict_, a warning if the mark is not proven; the register
.predict(X), .score(X, y), ...        those of the fitted estimator, unchanged
"""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone
from sklearn.utils import get_tags
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from wmplug.adapters.sklearn.augmentation import augment, rows_like
from wmplug.adapters.sklearn.run import FitLoop, LeftBehind, owned, records_of
from wmplug.adapters.sklearn.suspects import EstimatorSuspect
from wmplug.errors import InputError
from wmplug.training.loop import At
from wmplug.training.marking import Marking
from wmplug.training.options import Failure, Options
from wmplug.training.placement import PPM
from wmplug.watermark.watermark import Watermark

_Method = TypeVar("_Method", bound=Callable[..., Any])


def _has(name: str) -> Callable[[_Method], _Method]:
    """A method that is there if the estimator has it."""

    def check(self: Any) -> bool:
        getattr(getattr(self, "estimator_", self.estimator), name)
        return True

    only: Callable[[_Method], _Method] = available_if(check)
    return only


class Watermarked(MetaEstimatorMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn's classes are untyped
    """An estimator that is fitted with the mark's lessons, and is otherwise the one it wraps.

    >>> model = Watermarked(RandomForestClassifier(), mark).fit(X, y)
    >>> print(model.verdict_)

    Around a whole pipeline it takes raw rows. As the last step of one it takes rows as the step before makes them, and
    the mark's carriers must be such rows. Its score, its folds' held-out rows and evaluation sets hold no lessons.
    Parameters and fitted attributes are the estimator's: `estimator__max_depth` in a search, `classes_`,
    `feature_importances_`. Each fit of a search or of a cross-validation trains with all lessons; give it
    `record=False` there, so that the register lists the models that you keep.

    A pickle holds the fitted estimator and no mark: neither key nor lessons, beyond what the estimator itself keeps
    of its rows, as nearest neighbours do. The copy predicts; to fit it, give it a mark (`set_params(mark=...)`). In
    other processes (`n_jobs=`), give the path of the mark, and WMPLUG_PASSPHRASE.

    Args:
        estimator: any with `fit(X, y)`: of scikit-learn, XGBoost, LightGBM; not changed.
        mark: the watermark, of a scheme that teaches by samples, such as `rows`; or the path of one. None fits the
            estimator alone.
        on_failure: if the mark is not proven after the fit: "warn", or "raise" VerificationError.
        require_evidence: end a fit that cannot be recorded in the mark's register, instead of warning.
        record: record the fit in the mark's register.

    Attributes:
        estimator_: the fitted estimator.
        verdict_: the `Verdict` on it, exact, one-sided, under the null that it is independent of the label key; None
            without a mark, or if it could not be asked.
    """

    def __init__(
        self,
        estimator: Any,
        mark: Any = None,
        *,
        on_failure: Failure = "warn",
        require_evidence: bool = False,
        record: bool = True,
    ) -> None:
        self.estimator = estimator
        self.mark = mark
        self.on_failure = on_failure
        self.require_evidence = require_evidence
        self.record = record

    def fit(self, X: Any, y: Any = None, sample_weight: Any = None, **fit_params: Any) -> "Watermarked":
        """Fit a clone of the estimator with lessons, verify it, record both.

        Args:
            X: (n, d) rows with the columns of the mark's carriers: an array, a SciPy sparse matrix, a data frame.
            y: (n,) classes, their names, or numbers.
            sample_weight: (n,) weights; a lesson gets their mean. Weights of a step, `step__sample_weight`, too.
            fit_params: passed on as they are; evaluation sets stay without lessons.

        Raises:
            InputError: X or y do not fit the mark, or a parameter has one value a row and lessons have none.
            InjectionError: the scheme needs more than samples.
            VerificationError: the mark is not proven, and on_failure is "raise".
            RegisterError: the fit cannot be recorded, and evidence is required.
        """
        given = fit_params if sample_weight is None else {"sample_weight": sample_weight, **fit_params}
        if self.mark is None:
            self.estimator_, self.verdict_ = clone(self.estimator).fit(X, y, **given), None
            return self
        X = np.asarray(X) if isinstance(X, (list, tuple)) else X
        options = Options(on_failure=self.on_failure, require_evidence=self.require_evidence)
        marking = Marking(owned(self.mark, self.record), FitLoop(self.as_suspect), options)
        taught, told, more = self._taught(marking.mark, X, y, given)
        count = len(told) - len(y)
        marking.begin()
        marking.rate = round(PPM * count / len(told))
        marking.start(data=records_of(X, y), arguments=self._arguments(), model=self.estimator)
        self.estimator_ = clone(self.estimator).fit(taught, told, **more)
        self._like = rows_like(X, np.zeros((0, *X.shape[1:]))) if hasattr(X, "columns") else None
        self._task = marking.mark.task
        marking.end(At(), verify=True, again=True, system=None, total=count)
        self.verdict_ = marking.verdict
        return self

    def _taught(self, mark: Watermark, X: Any, y: Any, given: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Rows, answers and parameters of the fit with lessons after them."""
        weights = [name for name in given if name == "sample_weight" or name.endswith("__sample_weight")]
        taught, told = augment(mark, X, y)
        more = {name: augment(mark, X, y, given[name])[2] for name in weights if given[name] is not None}
        for name, value in given.items():
            if name not in weights and not name.startswith("eval_") and _is_column(value, len(y)):
                raise InputError(
                    f"{name}= has one value for each row, and lessons have none: leave it out, or fit on what augment "
                    "returns with values of your own for the lessons after yours"
                )
        return taught, told, {**given, **more}

    def _arguments(self) -> dict[str, Any]:
        return {name: value for name, value in self.get_params().items() if name != "mark"}

    def as_suspect(self) -> EstimatorSuspect:
        """The fitted estimator, asked with the columns and dtypes that it was fitted with."""
        return EstimatorSuspect(self.estimator_, like=getattr(self, "_like", None), task=getattr(self, "_task", None))

    @_has("predict")
    def predict(self, X: Any, **params: Any) -> Any:
        """Answers of the fitted estimator."""
        return self._fitted().predict(X, **params)

    @_has("predict_proba")
    def predict_proba(self, X: Any, **params: Any) -> Any:
        """(n, classes) probabilities of the fitted estimator."""
        return self._fitted().predict_proba(X, **params)

    @_has("predict_log_proba")
    def predict_log_proba(self, X: Any, **params: Any) -> Any:
        """(n, classes) log probabilities of the fitted estimator."""
        return self._fitted().predict_log_proba(X, **params)

    @_has("decision_function")
    def decision_function(self, X: Any, **params: Any) -> Any:
        """Scores of the fitted estimator."""
        return self._fitted().decision_function(X, **params)

    @_has("score")
    def score(self, X: Any, y: Any = None, **params: Any) -> float:
        """The estimator's own score on these rows."""
        return float(self._fitted().score(X, y, **params))

    def _fitted(self) -> Any:
        check_is_fitted(self)
        return self.estimator_

    def __getattr__(self, name: str) -> Any:
        """Fitted attributes of the estimator, such as `classes_` and `feature_importances_`."""
        if name.startswith("_") or not name.endswith("_") or name == "estimator_" or "estimator_" not in vars(self):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.estimator_, name)

    def get_metadata_routing(self) -> Any:
        """The estimator's own, since it gets what `fit`, `score` and the others are given."""
        return self.estimator.get_metadata_routing()

    def __sklearn_tags__(self) -> Any:
        return copy.deepcopy(get_tags(self.estimator))

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if isinstance(self.mark, Watermark):
            state["mark"] = LeftBehind(self.mark.id)
        return state


def _is_column(value: Any, count: int) -> bool:
    shape = getattr(value, "shape", None)
    return (isinstance(shape, tuple) and shape[:1] == (count,)) or (
        isinstance(value, list) and len(value) == count and not isinstance(value[0], (tuple, list))
    )
