"""A Booster of LightGBM as a suspect."""

from collections.abc import Callable, Sequence
from typing import Any

import lightgbm
import numpy as np

from wmplug.suspects.protocols import Suspect
from wmplug.watermark.watermark import Preprocess


class BoosterSuspect:
    """A Booster of LightGBM, as its own `predict` asks it: up to the best round if it stopped early.

    Args:
        model: asked unchanged.
        preprocess: `preprocess(input, answer) -> (x, y)`; the input itself by default.
    """

    def __init__(self, model: lightgbm.Booster, *, preprocess: Preprocess | None = None) -> None:
        self.description = "Booster (LightGBM)"
        self.model, self.preprocess = model, preprocess

    def answer(self, inputs: Sequence[Any]) -> Any:
        """Numbers (n,), probabilities of class 1 (n,), or probabilities of all classes (n, classes) for n rows."""
        examples = [row if self.preprocess is None else self.preprocess(row, 0)[0] for row in inputs]
        return self.model.predict(np.stack([np.asarray(example) for example in examples]))


def suspect(
    target: Any, *, preprocess: Callable[[Any, Any], Any] | None = None, batch_size: int = 64
) -> Suspect | None:
    """A Booster as a suspect; None for other objects of LightGBM."""
    return BoosterSuspect(target, preprocess=preprocess) if isinstance(target, lightgbm.Booster) else None
