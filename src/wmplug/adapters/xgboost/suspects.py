"""A Booster of XGBoost as a suspect."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xgboost

from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Preprocess


class BoosterSuspect:
    """A Booster of XGBoost, with all of its trees, as its own `predict` asks it.

    Args:
        model: asked unchanged.
        preprocess: `preprocess(input, answer) -> (x, y)`; the input itself by default.
    """

    def __init__(self, model: xgboost.Booster, *, preprocess: Preprocess | None = None) -> None:
        self.description = f"Booster ({_objective(model)})"
        self.model, self.preprocess = model, preprocess

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Numbers (n,), probabilities of class 1 (n,), or margins of all classes (n, classes) for n rows."""
        examples = [row if self.preprocess is None else self.preprocess(row, 0)[0] for row in inputs]
        rows = np.stack([np.asarray(example) for example in examples])
        names, kinds = self.model.feature_names, self.model.feature_types
        asked = xgboost.DMatrix(rows, feature_names=names, feature_types=kinds, enable_categorical="c" in (kinds or ()))
        # multi:softmax answers the label alone, as a float; the margins hold all that it knows.
        return self.model.predict(asked, output_margin=_objective(self.model).startswith("multi:"))


def _objective(model: xgboost.Booster) -> str:
    return str(json.loads(model.save_config())["learner"]["objective"]["name"])


def suspect(
    target: Any, *, preprocess: Callable[[Any, Any], Any] | None = None, batch_size: int = 64
) -> Suspect | None:
    """A Booster as a suspect; None for other objects of XGBoost."""
    return BoosterSuspect(target, preprocess=preprocess) if isinstance(target, xgboost.Booster) else None
