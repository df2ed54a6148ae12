"""A model behind HTTP is asked, from Python and from the command line."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from typer.testing import CliRunner
from wmplug_example.api import Api

import wmplug
from wmplug.cli import app
from wmplug.testing import fixed_owner

ROWS = np.random.default_rng(0).normal(50, 20, (200, 7)).round()


@pytest.fixture(scope="module")
def mark():
    owner = fixed_owner("Ada")
    return wmplug.create(owner, scheme="table", carriers=ROWS, classes=10, triggers=40)


@pytest.fixture
def service():
    """What answers with `service.model`, on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["rows"]
            self.server.asked.append(len(rows))
            body = json.dumps(self.server.model(rows)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *words):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.asked, server.url = [], f"rows+http://127.0.0.1:{server.server_port}/predict"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def copy_of(mark):
    known = {mark.triggers.row(i).tobytes(): int(mark.triggers.answers[i]) for i in range(len(mark.triggers))}
    return lambda rows: {"labels": [known[np.array(row).tobytes()] for row in rows]}


def test_a_copy_is_proven_and_a_stranger_is_not(mark, service):
    service.model = copy_of(mark)
    assert wmplug.verify(mark, service.url, exhaustive=True, batch_size=16).proven
    assert service.asked == [16, 16, 8]
    service.model = lambda rows: {"labels": [0] * len(rows)}
    assert not wmplug.verify(mark, service.url).proven


def test_the_command_line_takes_the_url(mark, service, tmp_path, monkeypatch):
    service.model = copy_of(mark)
    file = mark.save(tmp_path / "mark.wm")
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "for tests only")
    result = CliRunner().invoke(app, ["verify", str(file), service.url, "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["state"] == "proven"


@pytest.mark.parametrize(
    ("reply", "why"),
    [({"labels": [1]}, "1 labels for 2 rows"), ({"error": "no"}, "returned no labels"), ([], "returned no labels")],
)
def test_what_is_no_answer_is_refused(service, reply, why):
    service.model = lambda rows: reply
    with pytest.raises(wmplug.SuspectError, match=why):
        Api(service.url).answer(ROWS[:2])


def test_a_service_that_is_down_is_named():
    with pytest.raises(wmplug.SuspectError, match=r"127\.0\.0\.1:9/ returned no labels .*check that the service runs"):
        Api("rows+http://127.0.0.1:9/").answer(ROWS[:1])
