"""Marked answers over KServe's own server, which runs as a process of its own."""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import numpy as np
import pytest
from served_digits import marked
from wire import binary, read, v2

from wmplug import InputError
from wmplug.serving import Log, Serving, customer_name

pytest.importorskip("kserve", reason="the extra `kserve` holds other packages back; tox has it in `serving`")
HERE, GAP = Path(__file__).parent, 0.3
KEY = {"x-api-key": "customer's secret"}


@pytest.fixture(scope="module")
def mark(story):
    return marked(story, "http", personal=0.5)


@pytest.fixture(scope="module", params=["class", "middleware"])
def server(request, tmp_path_factory):
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(socket.socket()) for _ in range(2)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        http, grpc = (str(one.getsockname()[1]) for one in found)
    place = tmp_path_factory.mktemp("log") / "log.db"
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, HERE / "kserve_server.py", request.param, place, http, grpc],
        env={**os.environ, "PYTHONPATH": path},
    )
    with httpx.Client(base_url=f"http://127.0.0.1:{http}", timeout=60) as client:
        end = time.monotonic() + 120
        while True:
            with contextlib.suppress(httpx.TransportError):
                if client.get("/v2/health/ready").status_code == 200:
                    break
            assert process.poll() is None, "the server ended"
            assert time.monotonic() < end
            time.sleep(0.2)
        yield SimpleNamespace(kind=request.param, client=client, grpc=f"127.0.0.1:{grpc}", place=place)
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="module")
def asked(story):
    return story.asked[:200]


@pytest.fixture(scope="module")
def told(story, mark, asked):
    return lambda who="": Serving(mark, story.scores, gap=GAP).answer(asked, who)


def test_both_protocols_are_marked(server, story, asked, told):
    assert not np.allclose(told(), story.scores(asked))
    answer = server.client.post("/v1/models/digits:predict", json={"instances": asked.tolist()})
    assert np.allclose(answer.json()["predictions"], told())
    (found,) = read(server.client.post("/v2/models/digits/infer", json=v2(asked))).values()
    assert np.allclose(found, told())


@pytest.mark.parametrize("out", [False, True])
def test_binary_tensors_are_marked(out, server, asked, told):
    request = binary(asked, out)
    (found,) = read(server.client.post("/v2/models/digits/infer", **request)).values()
    assert np.allclose(found, told())


def test_a_customer_is_known_by_a_header(server, mark, asked, told):
    who = customer_name(KEY["x-api-key"])
    (found,) = read(server.client.post("/v2/models/digits/infer", json=v2(asked), headers=KEY)).values()
    assert np.allclose(found, told(who))
    assert not np.allclose(found, told())
    assert who in Log(server.place, mark, read_only=True).customers()


def test_grpc_is_marked_by_the_class_and_not_seen_by_the_middleware(server, story, asked, told):
    from kserve import InferenceGRPCClient, InferInput, InferRequest

    part = InferInput("x", list(asked.shape), "UINT8")
    part.set_data_from_numpy(asked)

    async def ask():
        client = InferenceGRPCClient(server.grpc)
        try:
            return await client.infer(InferRequest("digits", [part]))
        finally:
            await client.close()

    found = asyncio.run(ask()).outputs[0].as_numpy()
    assert np.allclose(found, told() if server.kind == "class" else story.scores(asked))


def test_what_is_not_in_the_form_of_the_carriers_is_told(server, story, asked):
    answer = server.client.post("/v1/models/digits:predict", json={"instances": (asked / 255).tolist()})
    if server.kind == "class":
        assert answer.status_code == 400
        assert "carriers" in answer.text
    else:  # its own model answers, and the service must not fail because of the mark
        assert np.allclose(answer.json()["predictions"], story.scores(asked / 255))


def test_a_serving_without_a_model_is_refused(mark):
    from wmplug.serving.kserve import ServedModel

    with pytest.raises(InputError, match=r"give Serving\(mark, model\)"):
        ServedModel("digits", Serving(mark))
