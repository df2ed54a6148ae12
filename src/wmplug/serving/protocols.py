"""Bodies of the two protocols of inference, as far as marking needs them.

V1, that of TensorFlow Serving and KServe: `instances` in, `predictions` out. V2, the Open Inference Protocol of KServe,
Triton and MLServer: `inputs` in, `outputs` out, each a tensor with a name, a shape and data. The data of V2 stand in
the JSON, or follow it as bytes (the binary tensor data extension).
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from wmplug.extras import need
from wmplug.statistics.arrays import Array

with need("serving"):
    import msgspec

HEAD = b"inference-header-content-length"  # the header that says where the JSON ends
_DTYPES = {"BOOL": "?", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"} | {
    f"{name}{8 * size}": f"<{kind}{size}" for name, kind in (("INT", "i"), ("UINT", "u")) for size in (1, 2, 4, 8)
}


class Body:
    """The body of a request or an answer.

    Args:
        data: its bytes.
        head: how many of them are JSON; None if all are.
        part: name of its list of tensors, in V2.

    Attributes:
        document: the JSON.
        tensors: the list of tensors; empty in V1.

    Raises:
        ValueError: it is not JSON.
    """

    def __init__(self, data: bytes, head: int | None, part: str) -> None:
        self.document: Any = msgspec.json.decode(data[:head])
        found = self.document.get(part) if isinstance(self.document, dict) else None
        found = found if isinstance(found, list) else []
        is_v2 = all(isinstance(one, dict) and "datatype" in one for one in found)
        self.tensors: list[dict[str, Any]] = found if is_v2 else []
        self._raw: list[bytes | None] = []
        at = len(data) if head is None else head
        for tensor in self.tensors:
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            self._raw.append(None if size is None else data[at : at + size])
            at += size or 0

    def read(self, number: int) -> Any:
        """The data of a tensor in its shape; of texts, a list.

        Raises:
            ValueError, KeyError: they do not fit what the tensor says of itself.
        """
        tensor, raw = self.tensors[number], self._raw[number]
        if tensor["datatype"] == "BYTES":
            return np.ravel(np.asarray(tensor["data"], object)).tolist() if raw is None else list(_texts(raw))
        data = tensor["data"] if raw is None else np.frombuffer(raw, _DTYPES[tensor["datatype"]])
        return np.asarray(data).reshape(tensor["shape"])

    def write(self, number: int, values: Array) -> None:
        """Put other data of the same shape into a tensor, in the form in which it came."""
        tensor = self.tensors[number]
        if self._raw[number] is None:
            tensor["data"] = values.ravel().tolist()
        elif tensor["datatype"] == "BYTES":
            texts = [text.encode() for text in values.ravel().tolist()]
            raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
            self._raw[number], tensor["parameters"]["binary_data_size"] = raw, len(raw)
        else:
            self._raw[number] = values.astype(_DTYPES[tensor["datatype"]]).tobytes()

    def encoded(self) -> tuple[bytes, int]:
        """The bytes, and how many of them are JSON."""
        head = msgspec.json.encode(self.document)
        return head + b"".join(raw for raw in self._raw if raw is not None), len(head)


def _texts(raw: bytes) -> Iterator[str]:
    """Texts, each after its length in four bytes."""
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        # A text that is not UTF-8 reaches the serving as one that cannot be read.
        yield raw[at + 4 : at + 4 + size].decode(errors="surrogateescape")
        at += 4 + size
