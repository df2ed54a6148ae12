import dataclasses
import hashlib
from datetime import datetime, timedelta, timezone

import pytest
from asn1crypto import cms, core, tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st
from issued import IMPRINT, REQUEST, THEN, URL, verified, with_leaf

from wmplug.errors import TimestampError
from wmplug.register.authority import POLICY, Party
from wmplug.register.timestamps import Trust, make_request, salt_of


def test_another_root(lab, other, refused):
    assert refused(lab.authority.issue(REQUEST), trust=other.trust(URL)) == "wrong-root"


def test_a_root_of_the_same_name_with_another_key(lab, other, refused):
    assert lab.authority.root.certificate.subject == other.root.certificate.subject
    assert refused(other.issue(REQUEST)) == "wrong-root"


def test_another_message_and_another_registers_token(lab, refused):
    theirs = hashlib.sha256(b"the entry of another register").digest()
    assert refused(lab.authority.issue(make_request(theirs))) == "wrong-imprint"
    assert refused(lab.authority.issue(REQUEST), imprint=theirs) == "wrong-imprint"


def test_another_hash_of_the_same_length(lab, resigned, refused):
    def other_hash(info, signed, signer):
        info["message_imprint"]["hash_algorithm"] = {"algorithm": "sha3_256"}

    assert refused(resigned(lab.authority.tsa, lab.authority.issue(REQUEST), other_hash)) == "wrong-imprint"


def test_a_replayed_token_and_a_dropped_nonce(lab, resigned, refused):
    def dropped(info, signed, signer):
        info["nonce"] = None

    assert refused(lab.authority.issue(make_request(IMPRINT))) == "wrong-nonce"
    assert refused(resigned(lab.authority.tsa, lab.authority.issue(REQUEST), dropped)) == "nonce-missing"


def test_a_request_that_is_another_or_none(lab, refused):
    response = lab.authority.issue(REQUEST)
    assert refused(response, request=make_request(bytes(32))) == "wrong-request"
    assert refused(response, request=REQUEST[:-1]) == "wrong-request"
    assert refused(response, request=REQUEST + b"\0") == "wrong-request"
    for junk in (b"", b"\x30\x00", b"\x30\x03\x02\x01\x01", IMPRINT):
        assert refused(response, request=junk) == "wrong-request"


@pytest.mark.parametrize("status", ["rejection", "waiting", "revocation_warning"])
def test_a_status_other_than_granted(lab, refused, status):
    assert refused(lab.authority.issue(REQUEST, status=status)) == "status-not-granted"


def test_a_response_cut_at_every_length(lab, refused):
    response = lab.authority.issue(REQUEST)
    assert {refused(response[:length]) for length in range(len(response))} == {"truncated"}


def test_bytes_after_the_response(lab, refused):
    response = lab.authority.issue(REQUEST)
    assert refused(response + b"\0") == "trailing-bytes"
    assert refused(response + response) == "trailing-bytes"


def test_bytes_after_what_is_signed(lab, refused):
    """The authority signed them too, and readers would differ on whether they belong to the token."""
    answer = tsp.TimeStampResp.load(lab.authority.issue(REQUEST))
    signed = answer["time_stamp_token"]["content"]
    more = bytes(signed["encap_content_info"]["content"]) + b"\x05\x00"
    signed["encap_content_info"]["content"] = core.ParsableOctetString(more)
    signer = signed["signer_infos"][0]
    kept = [one for one in signer["signed_attrs"] if one["type"].native != "message_digest"]
    attributes = cms.CMSAttributes([*kept, {"type": "message_digest", "values": [hashlib.sha256(more).digest()]}])
    signer["signed_attrs"] = attributes
    signer["signature"] = lab.authority.tsa.sign(attributes.dump())
    assert refused(answer.dump()) == "malformed"


@given(junk=st.binary(max_size=200))
def test_junk(lab, junk):
    for data in (junk, bytes([0x30, len(junk) % 128]) + junk):
        with pytest.raises(TimestampError):
            salt_of(data)


def test_two_signers(lab, resigned, refused):
    answer = tsp.TimeStampResp.load(lab.authority.issue(REQUEST))
    signers = answer["time_stamp_token"]["content"]["signer_infos"]
    answer["time_stamp_token"]["content"]["signer_infos"] = [signers[0], signers[0]]
    assert refused(answer.dump()) == "several-signers"


def test_a_signer_whose_certificate_is_missing_or_there_twice(lab, resigned, refused):
    asked = tsp.TimeStampReq.load(REQUEST)
    asked["cert_req"] = False
    assert refused(lab.authority.issue(asked.dump())) == "signer-missing"
    usual = with_leaf(lab.authority, lambda value, critical: [(value, critical)])
    twin = with_leaf(lab.authority, lambda value, critical: [(value, False)])

    def both(info, signed, signer):
        signed["certificates"].append(cms.CertificateChoices.load(twin.tsa.der))

    assert verified(usual.issue(REQUEST), usual).lab
    assert refused(resigned(usual.tsa, usual.issue(REQUEST), both)) == "signer-missing"


def test_a_crowd_of_certificates_that_certify_each_other(lab, refused):
    """To try every way through them would take for ever."""
    name, key, start = (
        lab.authority.intermediate.certificate.subject,
        lab.authority.intermediate.key,
        datetime(2026, 1, 1),
    )
    builder = x509.CertificateBuilder(name, name, key.public_key(), None, start, datetime(2040, 1, 1))
    crowd = [builder.serial_number(i + 1).sign(key, hashes.SHA256()).public_bytes(Encoding.DER) for i in range(20)]

    def among(many):
        answer = tsp.TimeStampResp.load(lab.authority.issue(REQUEST))
        for one in crowd[:many]:
            answer["time_stamp_token"]["content"]["certificates"].append(cms.CertificateChoices.load(one))
        return answer.dump()

    assert verified(among(14), lab.authority).certificates[1] == lab.authority.intermediate.der
    assert refused(among(14), trust=dataclasses.replace(lab.trust, roots=(lab.authority.tsa.der,))) == "wrong-root"
    assert refused(among(15)) == "signer-missing"


@pytest.mark.parametrize(
    ("field", "value"),
    [("gen_time", "00000101000000Z"), ("accuracy", {"seconds": 1 << 2000})],
    ids=["time", "accuracy"],
)
def test_numbers_out_of_all_bounds(lab, resigned, refused, field, value):
    def edit(info, signed, signer):
        info[field] = value

    assert refused(resigned(lab.authority.tsa, lab.authority.issue(REQUEST), edit)) == "malformed"


def test_signed_data_that_is_no_timestamp(lab, refused):
    answer = tsp.TimeStampResp.load(lab.authority.issue(REQUEST))
    signed = answer["time_stamp_token"]["content"]
    attributes = [one for one in signed["signer_infos"][0]["signed_attrs"] if one["type"].native != "content_type"]
    attributes = cms.CMSAttributes([*attributes, {"type": "content_type", "values": ["data"]}])
    signed["signer_infos"][0]["signed_attrs"] = attributes
    signed["signer_infos"][0]["signature"] = lab.authority.tsa.sign(attributes.dump())
    assert refused(answer.dump()) == "not-a-timestamp"


@pytest.mark.parametrize(
    ("usage", "critical", "code"),
    [
        ([], True, "eku-missing"),
        ([ExtendedKeyUsageOID.TIME_STAMPING], False, "eku-not-critical"),
        ([ExtendedKeyUsageOID.CODE_SIGNING], True, "eku-not-alone"),
        ([ExtendedKeyUsageOID.TIME_STAMPING, ExtendedKeyUsageOID.CODE_SIGNING], True, "eku-not-alone"),
    ],
)
def test_a_certificate_for_other_purposes(lab, refused, usage, critical, code):
    def edit(value, was_critical):
        if not isinstance(value, x509.ExtendedKeyUsage):
            return [(value, was_critical)]
        return [(x509.ExtendedKeyUsage(usage), critical)] if usage else []

    assert refused(with_leaf(lab.authority, edit).issue(REQUEST)) == code


def test_a_timestamping_certificate_that_certifies_others(lab, refused):
    """Whoever holds a leaf must not make a leaf below it."""
    subject = lab.authority.tsa.certificate.subject
    forged = with_leaf(lab.authority, lambda value, critical: [(value, critical)])
    forged = dataclasses.replace(forged, intermediate=lab.authority.tsa)
    builder = x509.CertificateBuilder(subject, x509.Name([]), forged.tsa.certificate.public_key(), 5)
    times = forged.tsa.certificate.not_valid_before_utc, forged.tsa.certificate.not_valid_after_utc
    builder = builder.not_valid_before(times[0]).not_valid_after(times[1])
    usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING])
    certificate = builder.add_extension(usage, True).sign(lab.authority.tsa.key, hashes.SHA256())
    forged = dataclasses.replace(forged, tsa=Party(certificate, forged.tsa.key))
    roots = lab.authority.root.der, lab.authority.intermediate.der
    assert refused(forged.issue(REQUEST), trust=Trust(URL, roots, (), (POLICY,))) == "bad-signature"


@pytest.mark.parametrize(
    ("at", "code"), [(timedelta(days=1200), "expired-at-gen-time"), (timedelta(days=-500), "not-yet-valid")]
)
def test_a_time_at_which_the_certificate_was_not_valid(old, refused, at, code):
    assert refused(old.issue(REQUEST, gen_time=THEN + at), trust=old.trust(URL)) == code


def test_a_time_in_the_future(lab, refused):
    ahead = datetime.now(timezone.utc) + timedelta(hours=1)
    response = lab.authority.issue(REQUEST, gen_time=ahead)
    assert refused(response) == "future"
    assert verified(response, lab.authority, now=ahead).gen_time == ahead
    # Two clocks need not agree to the second.
    soon = datetime.now(timezone.utc) + timedelta(minutes=1)
    assert verified(lab.authority.issue(REQUEST, gen_time=soon), lab.authority).gen_time == soon


@pytest.mark.parametrize("kind", ["signing_certificate", "signing_certificate_v2"])
def test_a_signature_that_names_another_certificate(lab, other, resigned, refused, kind):
    def naming(party):
        one = {"cert_hash": hashlib.new("sha1" if kind == "signing_certificate" else "sha256", party.der).digest()}
        attribute = {"type": kind, "values": [{"certs": [one]}]}

        def edit(info, signed, signer):
            kept = [one for one in signer["signed_attrs"] if one["type"].native != "signing_certificate_v2"]
            signer["signed_attrs"] = [*kept, attribute]

        return edit

    def unnamed(info, signed, signer):
        signer["signed_attrs"] = [one for one in signer["signed_attrs"] if one["type"].native == "content_type"]

    response, tsa = lab.authority.issue(REQUEST), lab.authority.tsa
    assert verified(resigned(tsa, response, naming(tsa)), lab.authority).lab
    assert refused(resigned(tsa, response, naming(other.tsa))) == "other-certificate"
    assert refused(resigned(tsa, response, unnamed)) == "certificate-not-named"


def test_a_renewed_certificate_in_place_of_the_one_meant(lab, refused):
    """Same name, serial and key: only the hash in the signature tells them apart."""
    meant = with_leaf(lab.authority, lambda value, critical: [(value, critical)])
    twin = with_leaf(
        lab.authority, lambda value, critical: [] if isinstance(value, x509.KeyUsage) else [(value, critical)]
    )
    response = meant.issue(REQUEST)
    answer = tsp.TimeStampResp.load(response)
    kept = [one for one in answer["time_stamp_token"]["content"]["certificates"] if one.chosen.dump() != meant.tsa.der]
    leaf = cms.CertificateChoices.load(twin.tsa.der)
    answer["time_stamp_token"]["content"]["certificates"] = [leaf, *kept]
    assert verified(response, meant).lab
    assert refused(answer.dump()) == "other-certificate"


def test_a_signature_over_a_weak_digest(lab, resigned, refused):
    def weak(info, signed, signer):
        signer["digest_algorithm"] = {"algorithm": "sha1"}
        signed["digest_algorithms"] = [{"algorithm": "sha1"}]

    assert refused(resigned(lab.authority.tsa, lab.authority.issue(REQUEST), weak)) == "weak-digest"


def test_a_signature_by_another_key(lab, other, resigned, refused):
    response = lab.authority.issue(REQUEST)
    assert refused(resigned(other.tsa, response, lambda *_: None)) == "bad-signature"
    assert verified(resigned(lab.authority.tsa, response, lambda *_: None), lab.authority).lab
