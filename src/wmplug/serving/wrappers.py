"""A model that is called as ever and answers marked: estimators, torch and Keras modules, pipelines, functions."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wmplug.errors import InputError, SuspectError
from wmplug.serving.service import Serving
from wmplug.statistics.arrays import Array, to_numpy

Ranking = list[dict[str, Any]]


def wrap(serving: Serving, call: Callable[..., Any], *, read: Callable[[Any], Any] | None = None) -> "Wrapped":
    """A function that is called like `call`, and whose answers the key decides where `call` is unsure.

    >>> answer = wrap(serving, estimator.predict_proba)
    >>> answer = wrap(serving, torch_module, read=lambda x: (255 * x[:, 0]).round().byte())
    >>> answer = wrap(serving, pipeline)

    Args:
        serving: the serving, without a model.
        call: returns scores (n, classes) for n inputs: an array, a tensor, an object with `logits`, or for each input
            a ranking of all classes, [{label, score}, ...], as a pipeline does.
        read: turns what `call` is given into inputs in the form of the carriers; by default they have this form.

    Raises:
        InputError: `call` cannot be called.
    """
    if not callable(call):
        what = type(call).__name__
        raise InputError(f"{what} cannot be called: give what returns its scores, such as .predict_proba")
    return Wrapped(serving, call, read)


class Wrapped:
    """The function that `wrap` returns; names of what it wraps that are no functions are its own too."""

    def __init__(self, serving: Serving, call: Callable[..., Any], read: Callable[[Any], Any] | None) -> None:
        self._serving, self._call, self._read = serving, call, read

    def __call__(self, inputs: Any, *, customer: str = "", **options: Any) -> Any:
        """The answers of what it wraps, marked, in the type in which they came.

        Args:
            inputs: n inputs as the wrapped function takes them.
            customer: who asks.
            options: passed on; a pipeline's `top_k` counts after the key has decided.

        Raises:
            SuspectError: the answers are no scores of all classes.
            InputError, ServingError: as in `Serving.served`.
        """
        if _is_pipeline(self._call):
            return self._ranked(inputs, customer, **options)
        outputs = self._call(inputs, **options)
        scores = getattr(outputs, "logits", outputs)
        told = self._told(inputs, scores, customer)
        told = scores.new_tensor(told) if hasattr(scores, "new_tensor") else told
        if scores is outputs:
            return told
        outputs.logits = told
        return outputs

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._call, name)
        if callable(value):
            raise AttributeError(
                f"{name}() of what is served would answer unmarked: call the wrapped function itself, or use {name} of "
                "the original"
            )
        return value

    def _told(self, inputs: Any, scores: Any, customer: str) -> Array:
        given = inputs if self._read is None else self._read(inputs)
        return self._serving.served(given if isinstance(given, list) else to_numpy(given), scores, customer)

    def _ranked(self, inputs: Any, customer: str, **options: Any) -> Any:
        alone = not isinstance(inputs, (list, tuple))
        texts = "TextClassificationPipeline" in {kind.__name__ for kind in type(self._call).__mro__}
        # Without top_k a pipeline of texts gives one answer each, and not a list of one.
        first = texts and "top_k" not in options
        top_k = options.pop("top_k", 1 if texts else 5)
        rows = [inputs] if alone else list(inputs)
        rankings = self._call(rows, top_k=None, **options)
        names = self._names()
        try:
            scores = np.array([[_by_name(one)[name] for name in names] for one in rankings], np.float64)
        except (KeyError, TypeError) as error:
            raise SuspectError(
                f"the pipeline's answer does not score every class ({type(error).__name__}: {error}): let it return "
                "{label, score} for each of " + ", ".join(names)
            ) from error
        told = [_ranking(row, names)[:top_k] for row in self._told(rows, scores, customer)]
        return told[0] if alone else [row[0] for row in told] if first else told

    def _names(self) -> Sequence[str]:
        """The labels of the pipeline, in the order of the watermark's classes."""
        task, known = self._serving.mark.task, self._call.model.config.id2label  # type: ignore[attr-defined]
        return getattr(task, "names", ()) or [known[number] for number in sorted(known)]


def _is_pipeline(call: Any) -> bool:
    return hasattr(getattr(getattr(call, "model", None), "config", None), "id2label")


def _by_name(ranking: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    return {str(one["label"]): float(one["score"]) for one in ranking}


def _ranking(scores: Array, names: Sequence[str]) -> Ranking:
    order = np.argsort(-scores, kind="stable").tolist()
    return [{"label": names[number], "score": float(scores[number])} for number in order]
