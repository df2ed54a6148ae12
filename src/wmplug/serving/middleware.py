"""ASGI middleware: an HTTP service of a model answers marked, and the service itself stays as it is.

It reads two protocols of inference, in JSON. V1, that of TensorFlow Serving and KServe: `instances` in, `predictions`
out. V2, the Open Inference Protocol of KServe, Triton and MLServer: `inputs` in, `outputs` out, each a tensor with a
name, a shape and data. Any other request or answer passes unchanged.
"""

import asyncio
import contextlib
import hashlib
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np

from wmplug.errors import InputError, ServingError, ServingWarning, WmplugError
from wmplug.extras import need
from wmplug.serving.service import Serving
from wmplug.statistics.arrays import Array

with need("serving"):
    import msgspec

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class Middleware:
    """Marks the answers of a service; put it inside of what compresses them.

    Args:
        app: the service, an ASGI application.
        serving: the serving, without a model.
        customer: name of the request header by which you know a customer, such as "x-api-key"; the log holds a digest
            of its value. By default nobody has coins of their own.
        read: turns one instance, or one row of the first input tensor, into an input in the form of the carriers; by
            default it has this form.
    """

    def __init__(
        self, app: App, serving: Serving, *, customer: str = "", read: Callable[[Any], Any] | None = None
    ) -> None:
        self._app, self._serving, self._customer, self._read = app, serving, customer.lower().encode(), read
        self._read_one = False

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http" or scope["method"] != "POST":
            return await self._app(scope, receive, send)
        request = await _whole(receive)
        held: list[Message] = []

        async def again() -> Message:
            return request.pop() if request else await receive()

        async def hold(message: Message) -> None:
            if message["type"] == "http.response.start" and _is_answer(message):
                held.append(message)
            elif held and message["type"] == "http.response.body":
                held.append(message)
                if not message.get("more_body"):
                    await self._send(scope, body, held, send)
            else:
                await send(message)

        body = request[0].get("body", b"")
        await self._app(scope, again, hold)

    async def _send(self, scope: Message, body: bytes, held: list[Message], send: Send) -> None:
        start, answer = held[0], b"".join(message.get("body", b"") for message in held[1:])
        try:
            told = msgspec.json.decode(answer)
            scores = _scores_in(told)
            # The first request is read in any case, so that one in a wrong form is told at once.
            if scores is not None and (not self._read_one or self._serving.is_unsure(scores)):
                self._read_one = True
                # The log waits for the disk, and other requests must not.
                customer = _name(scope, self._customer)
                answer = await asyncio.to_thread(self._marked, body, told, scores, customer)
        except ServingError:  # the owner chose to stop
            raise
        # A service must not fail because of its mark.
        except (WmplugError, ValueError, TypeError, KeyError, IndexError) as error:
            if isinstance(error, InputError) and self._serving.unreadable == "stop":
                raise
            warnings.warn(f"an answer went out UNMARKED: {type(error).__name__}: {error}", ServingWarning, stacklevel=2)
        kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
        await send({**start, "headers": [*kept, (b"content-length", str(len(answer)).encode())]})
        await send({"type": "http.response.body", "body": answer})

    def _marked(self, request: bytes, told: Message, scores: Array, customer: str) -> bytes:
        asked = msgspec.json.decode(request)
        if "predictions" in told:
            told["predictions"] = self._served(asked["instances"], scores, customer).tolist()
        else:
            served = self._served(_tensor(asked["inputs"][0]), scores, customer)
            told["outputs"][0]["data"] = served.ravel().tolist()
        return msgspec.json.encode(told)

    def _served(self, inputs: Any, scores: Array, customer: str) -> Array:
        rows = list(inputs) if self._read is None else [self._read(one) for one in inputs]
        return self._serving.served(_array(rows), scores, customer)


async def _whole(receive: Receive) -> list[Message]:
    """The request's body in one message; or what came instead, such as a client that left."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return [message]
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return [{"type": "http.request", "body": b"".join(parts), "more_body": False}]


def _is_answer(start: Message) -> bool:
    headers = {name.lower(): value for name, value in start.get("headers", ())}
    plain = headers.get(b"content-encoding", b"identity") == b"identity"
    is_json = headers.get(b"content-type", b"").startswith(b"application/json")
    return bool(start["status"] == 200 and plain and is_json)


def _scores_in(told: Any) -> Array | None:
    """The scores of an answer; None if it is of neither protocol."""
    if not isinstance(told, dict) or not {"predictions", "outputs"} & set(told):
        return None
    return np.asarray(told["predictions"] if "predictions" in told else _tensor(told["outputs"][0]), np.float64)


def _name(scope: Message, header: bytes) -> str:
    value = next((value for name, value in scope["headers"] if header and name.lower() == header), b"")
    return customer_name(value.decode("latin-1")) if value else ""


def customer_name(key: str) -> str:
    """The name in the log of the customer who sends this value in the header: 16 hex digits of its SHA-256."""
    return hashlib.sha256(key.encode("latin-1")).hexdigest()[:16]


def _array(rows: list[Any]) -> Any:
    """Rows of numbers in one array; others as they are, since some of them can be read."""
    with contextlib.suppress(ValueError):  # several shapes
        if (array := np.asarray(rows)).dtype.kind in "uif":
            return array
    return rows


def _tensor(part: MutableMapping[str, Any]) -> Any:
    """The rows of a tensor of the Open Inference Protocol."""
    if part.get("datatype") == "BYTES":
        return part["data"]
    return np.asarray(part["data"]).reshape(part["shape"])
