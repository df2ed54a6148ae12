"""A served model under KServe: its Python server answers marked over HTTP (V1 and V2) and gRPC."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from wmplug.errors import InputError
from wmplug.extras import need
from wmplug.serving.middleware import customer_name
from wmplug.serving.service import Serving

with need("kserve"):
    import kserve
    from kserve.errors import InvalidInput
    from kserve.utils.utils import get_predict_input, get_predict_response


class ServedModel(kserve.Model):  # type: ignore[misc]
    """A model of KServe's Python SDK that answers marked.

    >>> kserve.ModelServer().start([ServedModel("digits", Serving(mark, model, log), customer="x-api-key")])

    It takes `instances` and returns `predictions` (V1), or takes the first input tensor and returns the scores in one
    output tensor (V2), in JSON, as bytes or by gRPC. For a model class of your own put the `Middleware` around
    KServe's application instead; it does not see gRPC.

    Args:
        name: the model's name in the service.
        serving: a serving with a model.
        customer: name of the request header by which you know a customer, such as "x-api-key"; the log holds a digest
            of its value. By default nobody has coins of their own.
        read: turns one instance, or one row of the tensor, into an input in the form of the carriers; by default it has
            this form.

    Raises:
        InputError: the serving has no model.
    """

    def __init__(
        self, name: str, serving: Serving, *, customer: str = "", read: Callable[[Any], Any] | None = None
    ) -> None:
        if serving.model is None:
            raise InputError("this serving has no model: give Serving(mark, model)")
        super().__init__(name)
        self._serving, self._customer, self._read = serving, customer.lower(), read
        self.ready = True

    async def predict(
        self, payload: Any, headers: Mapping[str, str] | None = None, response_headers: Any = None
    ) -> Any:
        """The answer to one request; InvalidInput, which is status 400, if it is not in the form of the carriers."""
        given = {name.lower(): value for name, value in (headers or {}).items()}
        key = given.get(self._customer, "")
        try:
            rows = _texts(get_predict_input(payload))
            inputs = rows if self._read is None else [self._read(one) for one in rows]
            # The model and the log take their time, and other requests must not wait.
            scores = await asyncio.to_thread(self._serving.answer, inputs, customer_name(key) if key else "")
        except InputError as error:
            raise InvalidInput(str(error)) from error
        return get_predict_response(payload, scores, self.name)


def _texts(rows: Any) -> Any:
    """Texts of a tensor as a list of them; other rows as they are."""
    if not isinstance(rows, np.ndarray) or rows.dtype != object:
        return rows
    return [one.decode(errors="surrogateescape") if isinstance(one, bytes) else one for one in rows.ravel().tolist()]
