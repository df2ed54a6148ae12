import http.client
import stat
import threading
from datetime import datetime, timezone
from urllib.parse import urlsplit

import pytest
from asn1crypto import tsp
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from rfc3161_client import decode_timestamp_response

from wmplug.errors import InputError
from wmplug.register.authority import POLICY, LabAuthority, serve
from wmplug.register.timestamps import fetch, fetch_crls, make_request, verify_token

IMPRINT = bytes(range(32))
URL = "http://127.0.0.1:9"


def _status(response):
    told = decode_timestamp_response(response)
    assert told.status_string == ["LAB ONLY - NOT ATTESTED"]
    return told.status


def _failure(response):
    info = tsp.TimeStampResp.load(response + b"")[0] if response[1] > 127 else None
    return tsp.PKIStatusInfo.load(response[2:])["fail_info"].native if info is None else info["fail_info"].native


def _post(url, body, **headers):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/timestamp-query", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(("kind", "key"), [("ec", ec.EllipticCurvePublicKey), ("rsa", rsa.RSAPublicKey)])
def test_what_is_made_says_that_it_is_a_lab_and_opens_again(tmp_path, kind, key):
    made = LabAuthority.create(tmp_path / "a", url=URL, kind=kind)
    opened = LabAuthority.open(tmp_path / "a")
    for name in ("tsa", "intermediate", "root"):
        party = getattr(opened, name)
        assert party.der == getattr(made, name).der
        assert isinstance(party.certificate.public_key(), key)
        assert "LAB ONLY - NOT ATTESTED" in party.certificate.subject.rfc4514_string()
        assert stat.S_IMODE((tmp_path / "a" / f"{name}.key").stat().st_mode) == 0o600
    usage = made.tsa.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert list(usage.value) == [ExtendedKeyUsageOID.TIME_STAMPING]
    request = make_request(IMPRINT)
    token = verify_token(opened.issue(request), imprint=IMPRINT, request=request, trust=made.trust(URL))
    assert token.lab


def test_a_folder_holds_one_authority(tmp_path):
    LabAuthority.create(tmp_path, url=URL)
    with pytest.raises(InputError, match="holds an authority already"):
        LabAuthority.create(tmp_path, url=URL)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: (folder / "tsa.crt").unlink(), "wmplug tsa make"),
        (lambda folder: (folder / "root.key").unlink(), "wmplug tsa make"),
        (lambda folder: (folder / "root.key").write_text("junk"), "damaged"),
        (lambda folder: (folder / "intermediate.crt").write_text("junk"), "damaged"),
    ],
)
def test_a_damaged_authority_is_not_opened(tmp_path, damage, said):
    LabAuthority.create(tmp_path, url=URL)
    damage(tmp_path)
    with pytest.raises(InputError, match=said):
        LabAuthority.open(tmp_path)


def test_a_token_names_the_lab_policy_and_the_time_asked_for(lab):
    at = datetime(2031, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
    response = lab.authority.issue(make_request(IMPRINT), gen_time=at)
    signed = tsp.TimeStampResp.load(response)["time_stamp_token"]["content"]
    info = signed["encap_content_info"]["content"].parsed
    assert info["gen_time"].native == at
    assert info["policy"].dotted == POLICY
    assert "LAB ONLY - NOT ATTESTED" in info["tsa"].chosen.human_friendly
    assert _status(response) == 0


def test_a_token_without_nonce_or_certificates_where_none_are_asked_for(lab):
    asked = tsp.TimeStampReq.load(make_request(IMPRINT))
    asked["nonce"], asked["cert_req"] = None, False
    signed = tsp.TimeStampResp.load(lab.authority.issue(asked.dump()))["time_stamp_token"]["content"]
    assert signed["encap_content_info"]["content"].parsed["nonce"].native is None
    assert len(signed["certificates"]) == 0


@pytest.mark.parametrize(
    ("change", "failure"),
    [
        (lambda asked: asked["message_imprint"].__setitem__("hash_algorithm", {"algorithm": "sha1"}), "bad_alg"),
        (lambda asked: asked["message_imprint"].__setitem__("hashed_message", b"short"), "bad_alg"),
        (lambda asked: asked.__setitem__("req_policy", "1.2.3"), "unaccepted_policy"),
    ],
)
def test_requests_that_are_rejected(lab, change, failure):
    asked = tsp.TimeStampReq.load(make_request(IMPRINT))
    change(asked)
    response = lab.authority.issue(asked.dump())
    assert _status(response) == 2
    assert _failure(response) == {failure}


@pytest.mark.parametrize("junk", [b"", b"junk", b"\x30\x00", b"\x30\x03\x02\x01\x01", make_request(IMPRINT) + b"\0"])
def test_junk_is_rejected_as_over_the_wire(lab, junk):
    response = lab.authority.issue(junk)
    assert _status(response) == 2
    assert _failure(response) == {"bad_data_format"}


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.org", "::", ""])
def test_only_this_machine_is_served(lab, host):
    with pytest.raises(InputError, match="loopback only"), serve(lab.folder, host=host):
        pass


def test_a_taken_port_and_a_missing_authority(lab, tmp_path):
    with pytest.raises(InputError, match="choose another port"), serve(lab.folder, port=urlsplit(lab.url).port):
        pass
    with pytest.raises(InputError, match="wmplug tsa make"), serve(tmp_path):
        pass


def test_many_at_once_over_http(lab):
    with serve(lab.folder, host="localhost") as url:
        serials, requests = [], [make_request(IMPRINT) for _ in range(8)]

        def ask(request):
            response = fetch(url, request)
            serials.append(verify_token(response, imprint=IMPRINT, request=request, trust=lab.trust).serial)

        threads = [threading.Thread(target=ask, args=(request,)) for request in requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(serials)) == len(requests)
    with pytest.raises(ConnectionRefusedError):
        _post(url, b"")


def test_what_the_server_refuses_to_read(lab):
    request = make_request(IMPRINT)
    assert _post(lab.url, request)[0] == 200
    assert _post(lab.url, request, **{"Content-Type": "text/plain"})[0] == 415
    assert _post(lab.url, b"", **{"Content-Length": "70000"})[0] == 413
    assert _post(lab.url, b"", **{"Content-Length": "-1"})[0] == 413
    status, body = _post(lab.url, b"junk")
    assert (status, _status(body)) == (200, 2)


def test_the_revocation_lists_are_where_the_certificates_say(lab):
    lists = [x509.load_der_x509_crl(one) for one in fetch_crls([lab.authority.tsa.der, lab.authority.intermediate.der])]
    assert [one.issuer for one in lists] == [
        lab.authority.intermediate.certificate.subject,
        lab.authority.root.certificate.subject,
    ]
    assert lists[0].is_signature_valid(lab.authority.intermediate.certificate.public_key())
    parts = urlsplit(lab.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    connection.request("GET", "/tsa.key")
    assert connection.getresponse().status == 404
    connection.close()


def test_a_list_gives_the_reason_that_it_was_given(lab):
    since = datetime(2026, 1, 2, tzinfo=timezone.utc)
    listed = x509.load_der_x509_crl(lab.authority.crl(revoked=since, reason=x509.ReasonFlags.superseded, at=since))
    entry = listed.get_revoked_certificate_by_serial_number(lab.authority.tsa.certificate.serial_number)
    assert entry.revocation_date_utc == listed.last_update_utc == since
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason is x509.ReasonFlags.superseded
    assert len(x509.load_der_x509_crl(lab.authority.crl("intermediate"))) == 0
