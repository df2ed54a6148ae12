import contextlib
import json
import socket
import struct
import threading
import time

import httpx
import numpy as np
import pytest
import uvicorn
from served_digits import marked
from starlette.applications import Starlette
from starlette.middleware import Middleware as Around
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from wire import HEAD, binary, read, v2

from wmplug import create
from wmplug.errors import ServingWarning
from wmplug.schemes.served import Served
from wmplug.serving import Log, Middleware, Serving, customer_name
from wmplug.testing.schemes import fixed_owner

GAP = 0.3
KEY = {"X-API-Key": "customer's secret"}


@contextlib.contextmanager
def running(app):
    """A real server on a free port."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        yield client
    server.should_exit = True
    thread.join()


def service(story, *around):
    async def v1(request):
        asked = await request.json()
        return JSONResponse({"predictions": story.scores(np.array(asked["instances"])).tolist(), "model": "digits"})

    async def v2(request):
        (tensor,) = (await request.json())["inputs"]
        scores = story.scores(np.array(tensor["data"]).reshape(tensor["shape"]))
        output = {"name": "p", "shape": list(scores.shape), "datatype": "FP64", "data": scores.ravel().tolist()}
        return JSONResponse({"model_name": "digits", "outputs": [output]})

    async def labels(request):
        asked = await request.json()
        return JSONResponse({"predictions": story.scores(np.array(asked["instances"])).argmax(axis=1).tolist()})

    async def other(request):
        return PlainTextResponse("hello " + (await request.body()).decode())

    async def failing(request):
        return JSONResponse({"predictions": [[0.5, 0.5]]}, status_code=503)

    async def streaming(request):
        async def lines():
            for number in range(3):
                yield f"line {number}\n"

        return StreamingResponse(lines(), media_type="text/plain")

    routes = [Route(f"/{f.__name__}", f, methods=["POST"]) for f in (v1, v2, labels, other, failing, streaming)]
    return Starlette(routes=routes, middleware=list(around))


@pytest.fixture(scope="module")
def personal(story):
    return marked(story, "http", personal=0.5)


@pytest.fixture(scope="module")
def log(personal, tmp_path_factory):
    return Log(tmp_path_factory.mktemp("log") / "log.db", personal)


@pytest.fixture(scope="module")
def client(story, personal, log):
    serving = Serving(personal, log=log, gap=GAP)
    with running(service(story, Around(Middleware, serving=serving, customer="X-API-Key"))) as client:
        yield client


@pytest.fixture(scope="module")
def asked(story):
    return story.asked[:200]


@pytest.fixture(scope="module")
def told(story, personal, asked):
    """What the serving says to nobody in particular."""
    return Serving(personal, story.scores, gap=GAP).answer(asked)


def test_predictions_are_marked_and_the_rest_stays(client, story, asked, told):
    answer = client.post("/v1", json={"instances": asked.tolist()}).json()
    assert answer["model"] == "digits"
    assert np.allclose(answer["predictions"], told)
    assert not np.allclose(answer["predictions"], story.scores(asked))


def test_tensors_are_marked(client, asked, told):
    (output,) = client.post("/v2", json=v2(asked)).json()["outputs"]
    assert output["name"] == "p"
    assert np.allclose(np.reshape(output["data"], output["shape"]), told)


def tensors(scores, *others):
    """A service that answers these outputs, as binary tensors where the request asks for them."""

    async def v2(request):
        body, head = await request.body(), request.headers.get(HEAD)
        asked = json.loads(body[: None if head is None else int(head)])
        (part,) = asked["inputs"]
        if head is not None:
            assert len(body) - int(head) == part["parameters"]["binary_data_size"]
        outputs, raw = [], b""
        for name, kind, given in (*others, ("scores", "FP32", scores)):
            output = {"name": name, "shape": list(given.shape), "datatype": kind}
            if asked.get("parameters", {}).get("binary_data_output"):
                data = (
                    b"".join(struct.pack("<I", len(x)) + x.encode() for x in given)
                    if kind == "BYTES"
                    else given.tobytes()
                )
                raw, output["parameters"] = raw + data, {"binary_data_size": len(data)}
            else:
                output["data"] = given.ravel().tolist()
            outputs.append(output)
        document = json.dumps({"model_name": "digits", "outputs": outputs}).encode()
        if not raw:
            return Response(document, media_type="application/json")
        return Response(document + raw, headers={HEAD: str(len(document))}, media_type="application/octet-stream")

    return Starlette(routes=[Route("/v2", v2, methods=["POST"])])


@pytest.mark.parametrize("out", [False, True])
def test_binary_tensors_are_marked_as_json_is(out, story, personal, asked, told):
    plain = story.scores(asked).astype(np.float32)
    with running(Middleware(tensors(plain), Serving(personal, gap=GAP))) as client:
        answer = client.post("/v2", **binary(asked, out))
        found = read(answer)["scores"]
        assert (HEAD in answer.headers) == out
        assert np.allclose(found, told, atol=1e-6)
        assert not np.allclose(found, plain)
        mixed = v2(asked) | {"parameters": {"binary_data_output": out}}
        assert np.allclose(read(client.post("/v2", json=mixed))["scores"], told, atol=1e-6)


@pytest.mark.parametrize("said", [["a", "b"], "a", {"a": 1}, [], [{"text": "a"}], None])
def test_outputs_of_another_kind_pass_unchanged(said, personal):
    async def other(request):
        return JSONResponse({"outputs": said})

    app = Middleware(Starlette(routes=[Route("/x", other, methods=["POST"])]), Serving(personal, gap=GAP))
    with running(app) as client:
        assert client.post("/x", json={"inputs": ["b"]}).json() == {"outputs": said}


@pytest.mark.parametrize("change", [{"datatype": "FP12"}, {"shape": [3, 10]}, {"data": None}, {"parameters": [1]}])
def test_a_tensor_that_does_not_hold_together_passes_with_a_warning(change, story, personal, asked):
    scores = story.scores(asked)
    output = {"name": "p", "shape": list(scores.shape), "datatype": "FP64", "data": scores.ravel().tolist(), **change}

    async def odd(request):
        return JSONResponse({"outputs": [output]})

    app = Middleware(Starlette(routes=[Route("/x", odd, methods=["POST"])]), Serving(personal, gap=GAP))
    with running(app) as client:
        if change == {"datatype": "FP12"}:  # its data stand in the JSON, where the kind does not matter
            assert client.post("/x", json=v2(asked)).json()["outputs"][0]["data"] != output["data"]
            return
        with pytest.warns(ServingWarning, match="UNMARKED"):
            assert client.post("/x", json=v2(asked)).json() == {"outputs": [output]}


@pytest.mark.parametrize("out", [False, True])
@pytest.mark.parametrize("kind", ["INT64", "BYTES"])
def test_a_label_beside_the_scores_follows_what_is_served(kind, out, story, personal, asked, told):
    plain = story.scores(asked).astype(np.float32)
    best = plain.argmax(axis=1)
    labels = best if kind == "INT64" else np.array([str(one) for one in best])
    outputs = [
        ("label", kind, labels),
        ("embedding", "FP32", plain[:, :3].copy()),
        ("rows", "INT64", np.arange(len(asked))),
    ]
    with running(Middleware(tensors(plain, *outputs), Serving(personal, gap=GAP), labels="label")) as client:
        found = read(client.post("/v2", **binary(asked, out)))
    assert np.allclose(found["scores"], told, atol=1e-6)
    assert found["label"].astype(int).tolist() == told.argmax(axis=1).tolist() != best.tolist()
    assert np.array_equal(found["rows"], np.arange(len(asked)))
    assert np.array_equal(found["embedding"], plain[:, :3])


def test_a_label_that_would_contradict_the_scores_leaves_all_unmarked(story, personal, asked, tmp_path):
    plain = story.scores(asked).astype(np.float32)
    best, log = plain.argmax(axis=1), Log(tmp_path / "log.db", personal)
    cases = [(best, None, "name it, .*labels='label'"), (best + 1, "label", "differs from the class")]
    for given, labels, why in cases:
        app = tensors(plain, ("label", "INT64", given))
        with running(Middleware(app, Serving(personal, log=log, gap=GAP), labels=labels)) as client:
            with pytest.warns(ServingWarning, match=f"UNMARKED: .*{why}"):
                found = read(client.post("/v2", **binary(asked)))
            assert np.array_equal(found["scores"], plain)
            assert np.array_equal(found["label"], given)
    assert not log.customers()
    app = tensors(plain, ("label", "INT64", best))
    with running(Middleware(app, Serving(personal, gap=GAP), labels="")) as client:
        assert not np.allclose(read(client.post("/v2", **binary(asked)))["scores"], plain)


@pytest.mark.parametrize("form", ["json", "nested", "binary"])
def test_texts_come_as_tensors(form, topics):
    texts, plain = list(topics[0][:40]), np.tile([0.35, 0.3, 0.2, 0.15], (40, 1)).astype(np.float32)
    scheme = Served(cells=10, pool=np.full((200, 4), 0.25))
    given = {"carriers": list(topics[0][:200]), "labels": topics[1][:200]}
    serving = Serving(create(fixed_owner("words"), scheme=scheme, classes=4, **given))
    part = {"name": "x", "shape": [40, 1], "datatype": "BYTES"}
    if form == "binary":
        raw = b"".join(struct.pack("<I", len(x.encode())) + x.encode() for x in texts)
        part["parameters"] = {"binary_data_size": len(raw)}
        head = json.dumps({"inputs": [part]}).encode()
        asked = {"content": head + raw, "headers": {HEAD: str(len(head))}}
    else:
        asked = {"json": {"inputs": [{**part, "data": [[x] for x in texts] if form == "nested" else texts}]}}
    with running(Middleware(tensors(plain), serving)) as client:
        found = read(client.post("/v2", **asked))["scores"]
    assert np.allclose(found, serving.served(texts, plain))
    assert not np.allclose(found, plain)


def test_a_customer_is_known_by_a_header_and_the_log_holds_no_key(client, asked, told, log):
    answer = client.post("/v1", json={"instances": asked.tolist()}, headers=KEY).json()
    names = [name for name in log.customers() if name]
    assert names == [customer_name(KEY["X-API-Key"])]
    assert "secret" not in names[0]
    assert not np.allclose(answer["predictions"], told)


def test_customers_are_told_apart(client, story, personal, asked, log):
    serving = Serving(personal, story.scores, gap=GAP)
    client.post("/v1", json={"instances": asked.tolist()}, headers=KEY)
    (name,) = [name for name in log.customers() if name]
    answer = client.post("/v1", json={"instances": asked.tolist()}, headers=KEY).json()
    assert np.allclose(answer["predictions"], serving.answer(asked, name))


def test_what_is_no_answer_passes_unchanged(client):
    assert client.post("/other", content=b"world" * 20_000).text == "hello " + "world" * 20_000
    assert client.post("/streaming").text == "line 0\nline 1\nline 2\n"
    assert client.post("/failing", json={"instances": []}).json() == {"predictions": [[0.5, 0.5]]}
    assert client.get("/v1").status_code == 405


def test_a_mark_that_fails_leaves_the_answer_as_it_was(client, story, asked):
    with pytest.warns(ServingWarning, match="an answer went out UNMARKED: SuspectError"):
        answer = client.post("/labels", json={"instances": asked.tolist()})
    assert answer.json()["predictions"] == story.scores(asked).argmax(axis=1).tolist()
    with pytest.warns(ServingWarning, match="carriers"):
        wide = client.post("/v1", json={"instances": (asked / 255).tolist()})
    assert wide.status_code == 200


@pytest.mark.parametrize("odd", [[[None] * 8] * 8, [[0] * 7] * 8, [[0, 1], 2], None, "text"])
def test_one_row_that_cannot_be_read_leaves_the_others_marked(odd, story, personal, asked, told, tmp_path):
    plain = story.scores(asked)
    place = int(np.flatnonzero((told != plain).any(axis=1))[2])
    rows = [*asked[:place].tolist(), odd, *asked[place + 1 :].tolist()]
    expected = told.copy()
    expected[place] = plain[place]

    async def patient(request):
        """A model that imputes what it cannot read."""
        return JSONResponse({"predictions": plain.tolist()})

    app = Starlette(routes=[Route("/patient", patient, methods=["POST"])])
    log = Log(tmp_path / "log.db", personal)
    with running(Middleware(app, Serving(personal, log=log, gap=GAP))) as client:
        with pytest.warns(ServingWarning, match="1 answers went out UNMARKED"):
            answer = client.post("/patient", json={"instances": rows})
        assert np.allclose(answer.json()["predictions"], expected)
        assert len(log.decided()) == (expected != plain).any(axis=1).sum()
    with running(Middleware(app, Serving(personal, gap=GAP, unreadable="stop"))) as client:
        assert client.post("/patient", json={"instances": rows}).status_code == 500
        assert client.post("/patient", json={"instances": [odd] * len(rows)}).status_code == 500
        assert client.post("/patient", json={"instances": asked.tolist()}).status_code == 200


def test_an_owner_who_chose_to_stop_is_obeyed(story, personal, asked, tmp_path):
    log = Log(tmp_path / "log.db", personal)
    log.close()
    (tmp_path / "log.db").unlink()
    (tmp_path / "log.db").mkdir()
    serving = Serving(personal, log=log, gap=GAP, without_log="stop")
    with running(service(story, Around(Middleware, serving=serving))) as client:
        assert client.post("/v1", json={"instances": asked.tolist()}).status_code == 500


def test_instances_may_be_read_into_the_form_of_the_carriers(story, personal, asked, told):
    serving = Serving(personal, gap=GAP)
    read = Around(Middleware, serving=serving, read=lambda one: np.rint(np.array(one) * 255).astype(np.uint8))

    async def scaled(request):
        instances = np.array((await request.json())["instances"])
        return JSONResponse({"predictions": story.scores(np.rint(instances * 255)).tolist()})

    with running(Starlette(routes=[Route("/scaled", scaled, methods=["POST"])], middleware=[read])) as client:
        answer = client.post("/scaled", json={"instances": (asked / 255).tolist()}).json()
    assert np.allclose(answer["predictions"], told)


def test_many_ask_at_once(client, asked, told):
    found = [None] * 8

    def ask(place):
        found[place] = client.post("/v1", json={"instances": asked.tolist()}).json()["predictions"]

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.allclose(one, told) for one in found)
