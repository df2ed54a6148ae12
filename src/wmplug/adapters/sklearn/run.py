"""One call of `fit` as a run of `Marking`: what is asked, what is recorded, whose mark it is."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from wmplug.adapters.sklearn.augmentation import is_sparse
from wmplug.errors import InputError
from wmplug.making.loading import opened
from wmplug.suspects.protocols import Suspect
from wmplug.training.loop import At, OneProcess


class FitLoop(OneProcess):
    """One call of `fit`, which ends before anything can be asked.

    Args:
        ask: returns the fitted estimator as a suspect.
    """

    name: ClassVar[str] = "sklearn"
    points: ClassVar[frozenset[str]] = frozenset({"samples"})
    calls: ClassVar[frozenset[str]] = frozenset({"classify", "predict"})
    events: ClassVar[tuple[str, ...]] = ()
    advice: ClassVar[str] = (
        "let leaves hold single rows, fit more or deeper trees, or make a mark with more triggers= or copies="
    )

    def __init__(self, ask: Callable[[], Suspect]) -> None:
        self._ask = ask

    def suspect(self) -> Suspect:
        """The fitted estimator."""
        return self._ask()

    def log(self, numbers: Mapping[str, float], at: At) -> None:
        """Nothing: the verdict is an attribute of the estimator."""

    def stop(self) -> None:
        """Nothing: the fit is over."""

    def set_rate(self, rate: int) -> None:
        """Nothing: the mark decides how often it is taught."""


@dataclass(frozen=True)
class LeftBehind:
    """What a pickled estimator holds in place of its mark.

    Attributes:
        id: the mark's public id.
    """

    id: str

    def __str__(self) -> str:
        """Where the mark is."""
        return f"the watermark {self.id} stayed where this estimator was pickled"


def owned(mark: Any, record: bool) -> Any:
    """The watermark, opened if it is a path; without its register if nothing is to be recorded.

    Raises:
        InputError: it is that of a pickled estimator.
        KeyFileError, NewerVersionError, WrongPassphraseError, PluginError: as in `load`.
    """
    if isinstance(mark, LeftBehind):
        raise InputError(
            f"{mark}: give it again, set_params(mark=...); for other processes (n_jobs=) give the path of its file"
        )
    found = opened(mark)
    return found if record or not hasattr(found, "register") else dataclasses.replace(found, register=None)


def records_of(X: Any, y: Any) -> Any:
    """The training set as the register commits to it: records of a row and its answer."""
    answers = np.asarray(y)
    if is_sparse(X):
        return _SparseRows(X.tocsr(), answers)
    if hasattr(X, "columns"):
        return {**{f"X.{name}": X[name] for name in X.columns}, "y": answers}
    return X, answers


class _SparseRows:
    """Dense rows of a sparse matrix, one at a time, with their answers."""

    def __init__(self, rows: Any, answers: Any) -> None:
        self._rows, self._answers = rows, answers

    def __len__(self) -> int:
        return len(self._answers)

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        return self._rows[[place]].toarray()[0], self._answers[place]
