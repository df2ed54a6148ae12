"""A calendar on loopback that makes real proofs, and a register that asks it."""

import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from blocks import PASSPHRASE, Calendar, serialized
from typer.testing import CliRunner

from wmplug.cli import app
from wmplug.keys.owner import Owner
from wmplug.register import Register, calendars


@pytest.fixture
def calendar():
    served = Calendar()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.reply("POST", lambda: served.post(body) if self.path == "/digest" else None)

        def do_GET(self):
            name = self.path.removeprefix("/timestamp/")
            self.reply("GET", lambda: serialized(served.proven[name]) if name in served.proven else None)

        def reply(self, method, made):
            served.asked.append(method)
            body = made() if served.answer is None else b""
            status, headers, body = served.answer or (404 if body is None else 200, {}, body or b"Pending")
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield served
        server.shutdown()
        thread.join()


@pytest.fixture
def offline():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture
def register(tmp_path):
    return Register.of(Owner.create(tmp_path / "own", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10))


@pytest.fixture
def proven(register, calendar):
    """A register with a proof of its first entry, the entry that records it, and the header it needs."""
    calendars.stamp(register, [calendar.url])
    calendar.mine(900_000)
    (entry,) = calendars.upgrade(register)
    return register, entry, calendar.headers


class Hidden:
    """Keeps the package from being found."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("opentimestamps", "bitcoin"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def without_package(monkeypatch):
    for name in list(sys.modules):
        if name.partition(".")[0] in ("opentimestamps", "bitcoin") or name == "wmplug.register.calendars":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Hidden, *sys.meta_path])


@pytest.fixture
def terminal(register, monkeypatch):
    """Runs `wmplug register ...` on the register."""
    monkeypatch.setenv("WMPLUG_PASSPHRASE", PASSPHRASE)

    def run(*words, code=0):
        result = CliRunner().invoke(app, ["register", *map(str, words), "--register", str(register.path)])
        assert result.exit_code == code, result.output + repr(result.exception)
        return result

    return run
