import http.server
import socket
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from asn1crypto import tsp
from cryptography import x509
from issued import IMPRINT, REQUEST, with_leaf

from wmplug.errors import InputError, TimestampError
from wmplug.register import timestamps
from wmplug.register.timestamps import fetch, fetch_crls, imprint_of, make_request, verify_token


def test_a_request_asks_for_certificates_with_a_nonce_of_its_own(lab):
    one, two = (tsp.TimeStampReq.load(make_request(IMPRINT), strict=True).native for _ in range(2))
    assert one["message_imprint"]["hashed_message"] == IMPRINT
    assert one["message_imprint"]["hash_algorithm"]["algorithm"] == "sha256"
    assert one["cert_req"] is True
    assert one["nonce"] != two["nonce"]
    assert imprint_of(lab.authority.issue(REQUEST)) == IMPRINT
    with pytest.raises(InputError, match="the imprint has 20 bytes"):
        make_request(bytes(20))


def test_over_the_wire_with_revocation_lists(lab):
    token = verify_token(fetch(lab.url, REQUEST), imprint=IMPRINT, request=REQUEST, trust=lab.trust)
    lists = fetch_crls(token.certificates)
    assert len(lists) == 2
    response = lab.authority.issue(REQUEST, gen_time=token.gen_time)
    confirmed = verify_token(response, imprint=IMPRINT, request=REQUEST, trust=lab.trust, crls=lists)
    assert confirmed.unrevoked_at >= token.gen_time


def test_lists_that_cannot_be_had_are_left_out(old):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        gone = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert fetch_crls([old.root.der]) == []

    def elsewhere(value, critical):
        if not isinstance(value, x509.CRLDistributionPoints):
            return [(value, critical)]
        urls = [x509.UniformResourceIdentifier(url) for url in (f"{gone}/a.crl", "ldap://127.0.0.1/a", "file:///etc/a")]
        return [(x509.CRLDistributionPoints([x509.DistributionPoint(urls, None, None, None)]), False)]

    assert fetch_crls([with_leaf(old, elsewhere).tsa.der]) == []


@contextmanager
def _answering(body=b"", *, kind="application/timestamp-reply", status=200, pause=0.0):
    """A server that gives this answer, byte by byte where a pause is asked for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.end_headers()
            for start in range(0, len(body), 1 if pause else len(body)):
                self.wfile.write(body[start : start + (1 if pause else len(body))])
                self.wfile.flush()
                if pause and stopped.wait(pause):
                    return

        def log_message(self, *args):
            pass

    stopped = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            stopped.set()
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ({"body": b"<html>", "kind": "text/html"}, "not-a-reply"),
        ({"body": bytes(1 << 17)}, "too-large"),
        ({"body": b"busy", "status": 503}, "unreachable"),
        ({"body": b"no", "status": 404, "kind": "text/plain"}, "unreachable"),
    ],
)
def test_answers_that_are_none(answer, code):
    with _answering(**answer) as url, pytest.raises(TimestampError) as caught:
        fetch(url, REQUEST)
    assert caught.value.code == code


@contextmanager
def _redirecting(to, code):
    """A server that sends every request elsewhere, and notes the methods."""
    seen = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            seen.append(self.command)
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Location", to)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", seen
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_the_request_follows_a_redirect_of_the_authority(lab, code):
    with _redirecting(lab.url, code) as (url, _):
        assert imprint_of(fetch(url, REQUEST)) == IMPRINT


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/"])
def test_a_redirect_to_what_is_no_authority_is_not_followed(to):
    with _redirecting(to, 302) as (url, seen), pytest.raises(TimestampError) as caught:
        fetch(url, REQUEST)
    assert (caught.value.code, seen) == ("unreachable", ["POST"])


def test_a_redirect_from_https_to_http_is_not_followed():
    asked = urllib.request.Request("https://tsa.example", b"query", {"Accept": "x"})
    with pytest.raises(urllib.error.HTTPError, match="not safe"):
        timestamps._Following().redirect_request(asked, None, 302, "Found", {}, "http://tsa.example/")
    kept = timestamps._Following().redirect_request(asked, None, 308, "Found", {}, "https://tsa.example/new")
    assert (kept.data, kept.full_url, kept.get_method()) == (b"query", "https://tsa.example/new", "POST")


def test_redirects_in_a_circle_end():
    with _redirecting("/again", 307) as (url, seen), pytest.raises(TimestampError) as caught:
        fetch(url, REQUEST)
    assert caught.value.code == "unreachable"
    assert 1 < len(seen) < 20


def test_an_authority_that_answers_byte_by_byte_does_not_hold_up_the_caller():
    with _answering(bytes(1000), pause=0.05) as url:
        start = time.monotonic()
        with pytest.raises(TimestampError, match="not done after") as caught:
            fetch(url, REQUEST, timeout=0.5)
        assert time.monotonic() - start < 5
    assert isinstance(caught.value.__cause__, TimeoutError)


def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(TimestampError) as caught:
        fetch(f"http://127.0.0.1:{port}", REQUEST)
    assert caught.value.code == "unreachable"
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://tsa.example", "tsa.example", "http://", "http://[", ""])
def test_urls_of_no_authority(url):
    with pytest.raises(TimestampError) as caught:
        fetch(url, REQUEST)
    assert caught.value.code == "bad-url"


def test_a_proxy_is_not_asked_for_what_is_on_this_machine(lab, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert imprint_of(fetch(lab.url, REQUEST)) == IMPRINT
