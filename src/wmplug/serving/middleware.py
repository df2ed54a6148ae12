"""ASGI middleware: an HTTP service of a model answers marked, and the service itself stays as it is.

It reads two protocols of inference, V1 and V2 (see `protocols`), in JSON, and the binary tensors of V2. Any other
request or answer passes unchanged.
"""

import asyncio
import contextlib
import hashlib
import warnings
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

import numpy as np

from wmplug.errors import InputError, ServingError, ServingWarning, WmplugError
from wmplug.serving.protocols import HEAD, Body
from wmplug.serving.service import Serving
from wmplug.statistics.arrays import Array, IntArray
from wmplug.tasks.classes import count_of

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
        labels: name of the output tensor that states the class, by its number or its name, beside the scores (V2); it
            follows what is served. "" if none does. By default, an answer goes out unmarked in which one seems to.
    """

    def __init__(
        self,
        app: App,
        serving: Serving,
        *,
        customer: str = "",
        read: Callable[[Any], Any] | None = None,
        labels: str | None = None,
    ) -> None:
        self._app, self._serving, self._customer, self._read = app, serving, customer.lower().encode(), read
        self._labels, self._classes = labels, count_of(serving.mark.task, "a serving")
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
        head = _head(start["headers"])
        try:
            told = Body(answer, head, "outputs")
            place = self._place(told)
            scores = _scores(told, place)
            # The first request is read in any case, so that one in a wrong form is told at once.
            if scores is not None and (not self._read_one or self._serving.is_unsure(scores)):
                self._read_one = True
                asked = Body(body, _head(scope["headers"]), "inputs")
                # The log waits for the disk, and other requests must not.
                await asyncio.to_thread(self._mark, asked, told, place, scores, _name(scope, self._customer))
                answer, written = told.encoded()
                head = None if head is None else written
        except ServingError:  # the owner chose to stop
            raise
        # A service must not fail because of its mark.
        except (WmplugError, ValueError, TypeError, LookupError, AttributeError) as error:
            if isinstance(error, InputError) and self._serving.unreadable == "stop":
                raise
            warnings.warn(f"an answer went out UNMARKED: {type(error).__name__}: {error}", ServingWarning, stacklevel=2)
        sizes = {b"content-length": len(answer), **({} if head is None else {HEAD: head})}
        kept = [pair for pair in start["headers"] if pair[0].lower() not in sizes]
        stated = [(name, str(size).encode()) for name, size in sizes.items()]
        await send({**start, "headers": [*kept, *stated]})
        await send({"type": "http.response.body", "body": answer})

    def _place(self, told: Body) -> int:
        """The number of the tensor that holds scores; -1 in V1, or if there is none."""
        if not told.tensors:
            return -1
        fits = [
            tensor["datatype"].startswith("FP")
            and (tensor["shape"][-1] == self._classes or (self._classes == 2 and tensor["shape"][1:] in ([], [1])))
            for tensor in told.tensors
        ]
        return fits.index(True) if True in fits else 0

    def _mark(self, asked: Body, told: Body, place: int, scores: Array, customer: str) -> None:
        if place < 0:
            told.document["predictions"] = self._served(asked.document["instances"], scores, customer).tolist()
            return
        labels = self._stated(told, place, self._serving.likeliest(scores))
        served = self._served(asked.read(0), scores, customer)
        told.write(place, served)
        if labels is not None:
            number, values = labels
            values = np.asarray(values)
            told.write(number, self._named(self._serving.likeliest(served), values).reshape(values.shape))

    def _stated(self, told: Body, place: int, best: IntArray) -> tuple[int, Any] | None:
        """The number and the data of the tensor that states the likeliest class."""
        for number, tensor in enumerate(told.tensors):
            is_class = not tensor["datatype"].startswith(("FP", "BOOL"))
            if number == place or not is_class or (self._labels is not None and tensor["name"] != self._labels):
                continue
            values = told.read(number)
            if np.array_equal(np.ravel(values), self._named(best, np.asarray(values))):
                if self._labels is None:
                    raise InputError(
                        f"output {tensor['name']!r} seems to state the class beside the scores: name it, "
                        f"Middleware(..., labels={tensor['name']!r}), or give labels='' if it does not"
                    )
                return number, values
            if self._labels is not None:
                raise InputError(
                    f"output {self._labels!r} differs from the class that scores highest: leave labels= out"
                )
        return None

    def _named(self, classes: IntArray, like: Array) -> Array:
        """Classes as the service states them: by number, or by name."""
        if like.dtype.kind in "iu":
            return classes
        return np.asarray(getattr(self._serving.mark.task, "names", ()) or range(self._classes), str)[classes]

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
    known = HEAD in headers or headers.get(b"content-type", b"").startswith(b"application/json")
    return bool(start["status"] == 200 and plain and known)


def _head(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """How many bytes of a body are JSON; None if the headers do not say."""
    return next((int(value) for name, value in headers if name.lower() == HEAD), None)


def _scores(told: Body, place: int) -> Array | None:
    """The scores of an answer; None if it is of neither protocol."""
    if place < 0 and not (isinstance(told.document, dict) and "predictions" in told.document):
        return None
    return np.asarray(told.document["predictions"] if place < 0 else told.read(place), np.float64)


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
