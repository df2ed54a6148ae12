"""Requests and answers of the Open Inference Protocol (V2), in JSON and as bytes after it."""

import json
import struct

import numpy as np

HEAD = "inference-header-content-length"


def v2(asked):
    return {"inputs": [{"name": "x", "shape": list(asked.shape), "datatype": "UINT8", "data": asked.ravel().tolist()}]}


def binary(asked, out=True):
    """A request with its tensor after the JSON."""
    raw = asked.tobytes()
    part = {"name": "x", "shape": list(asked.shape), "datatype": "UINT8", "parameters": {"binary_data_size": len(raw)}}
    document = json.dumps({"inputs": [part], "parameters": {"binary_data_output": out}}).encode()
    return {"content": document + raw, "headers": {HEAD: str(len(document))}}


def read(answer):
    """The outputs by their names, and what they say of themselves."""
    head = answer.headers.get(HEAD)
    at = len(answer.content) if head is None else int(head)
    found = {}
    for part in json.loads(answer.content[:at])["outputs"]:
        if (size := (part.get("parameters") or {}).get("binary_data_size")) is None:
            data = part["data"]
        else:
            raw, at = answer.content[at : at + size], at + size
            kinds = {"FP32": "<f4", "FP64": "<f8", "INT64": "<i8"}
            data = np.frombuffer(raw, kinds[part["datatype"]]) if part["datatype"] in kinds else split(raw)
        found[part["name"]] = np.reshape(data, part["shape"])
    assert at == len(answer.content)
    return found


def split(raw):
    texts = []
    while raw:
        (size,) = struct.unpack_from("<I", raw)
        texts, raw = [*texts, raw[4 : 4 + size].decode()], raw[4 + size :]
    return texts
