import dataclasses
import hashlib
import http.server
import json
import socket
import subprocess
import threading
import time
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone

import pytest
from asn1crypto import cms, tsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ReasonFlags
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from wmplug.errors import InputError, TimestampError
from wmplug.register.authority import POLICY, LabAuthority, Party, certified
from wmplug.register.timestamps import Trust, fetch, fetch_crls, imprint_of, make_request, salt_of, verify_token

IMPRINT = hashlib.sha256(b"an entry").digest()
REQUEST = make_request(IMPRINT)
URL = "http://tsa.example"
THEN = datetime(2020, 6, 1, 12, 0, tzinfo=timezone.utc)
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.fixture(scope="module")
def rsa(tmp_path_factory):
    return LabAuthority.create(tmp_path_factory.mktemp("rsa"), url=URL, kind="rsa")


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """An authority whose timestamping certificate was good in 2020 and 2021."""
    since, until = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (2020, 2022))
    return LabAuthority.create(tmp_path_factory.mktemp("old"), url=URL, since=since, until=until)


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return LabAuthority.create(tmp_path_factory.mktemp("other"), url=URL)


@pytest.fixture
def refused(lab):
    """Calls verify_token and gives the code of the refusal."""

    def code(response, *, imprint=IMPRINT, request=REQUEST, trust=lab.trust, **rest):
        with pytest.raises(TimestampError) as caught:
            verify_token(response, imprint=imprint, request=request, trust=trust, **rest)
        return caught.value.code

    return code


def verified(response, by, **rest):
    return verify_token(response, imprint=IMPRINT, request=REQUEST, trust=by.trust(URL), **rest)


def with_leaf(authority, edit):
    """The authority with a timestamping certificate whose extensions are edited."""
    old = authority.tsa.certificate
    builder = x509.CertificateBuilder(
        old.issuer, old.subject, old.public_key(), 77, old.not_valid_before_utc, old.not_valid_after_utc
    )
    for extension in old.extensions:
        for value, critical in edit(extension.value, extension.critical):
            builder = builder.add_extension(value, critical)
    signed = builder.sign(authority.intermediate.key, hashes.SHA256())
    return dataclasses.replace(authority, tsa=Party(signed, authority.tsa.key))


# What is accepted


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_good_token_says_what_the_authority_meant(lab, rsa, kind):
    authority = lab.authority if kind == "ec" else rsa
    at = datetime.now(timezone.utc).replace(microsecond=250000)
    token = verified(authority.issue(REQUEST, gen_time=at), authority)
    assert token.status == "valid"
    assert token.reasons == ()
    assert token.gen_time == at
    assert token.accuracy == 1.0
    assert token.policy == POLICY
    assert token.lab
    assert not token.expired
    assert token.unrevoked_at is None
    assert "LAB ONLY - NOT ATTESTED" in token.authority
    assert token.certificates == tuple(p.der for p in (authority.tsa, authority.intermediate, authority.root))


def test_two_tokens_differ_in_serial_and_salt(lab):
    one, two = (verified(lab.authority.issue(REQUEST), lab.authority) for _ in range(2))
    assert one.serial != two.serial
    assert one.salt != two.salt
    assert len(one.salt) == 32


def test_without_the_request_the_nonce_is_not_compared(lab):
    response = lab.authority.issue(make_request(IMPRINT))
    assert verify_token(response, imprint=IMPRINT, request=None, trust=lab.trust).status == "valid"


def test_an_accuracy_may_be_finer_or_missing(lab, resigned):
    def finer(info, signed, signer):
        info["accuracy"] = {"millis": 250, "micros": 500}

    def none(info, signed, signer):
        info["accuracy"] = None

    response = lab.authority.issue(REQUEST)
    assert verified(resigned(lab.authority.tsa, response, finer), lab.authority).accuracy == pytest.approx(0.2505)
    assert verified(resigned(lab.authority.tsa, response, none), lab.authority).accuracy is None


def test_an_intermediate_that_the_token_lacks_may_stand_in_the_trust(lab, resigned, refused):
    def leaf_only(info, signed, signer):
        signed["certificates"] = [one for one in signed["certificates"] if one.chosen.dump() == lab.authority.tsa.der]

    response = resigned(lab.authority.tsa, lab.authority.issue(REQUEST), leaf_only)
    assert refused(response) == "wrong-root"
    roots = lab.authority.root.der, lab.authority.intermediate.der
    assert verify_token(response, imprint=IMPRINT, request=REQUEST, trust=Trust(URL, roots, (), (POLICY,))).lab
    # It completes a chain, and is no end of one.
    assert refused(response, trust=Trust(URL, roots[1:], (), (POLICY,))) == "wrong-root"


def test_a_certificate_or_a_key_can_be_pinned(lab, other, refused):
    response = lab.authority.issue(REQUEST)
    leaf = lab.authority.tsa.certificate
    key = leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for own in (leaf.public_bytes(Encoding.DER), key):
        pins = hashlib.sha256(own).hexdigest().upper(), "00" * 32
        trust = dataclasses.replace(lab.trust, pins=pins)
        assert verify_token(response, imprint=IMPRINT, request=REQUEST, trust=trust).status == "valid"
    pins = (hashlib.sha256(other.tsa.der).hexdigest(),)
    assert refused(response, trust=dataclasses.replace(lab.trust, pins=pins)) == "wrong-pin"


def test_the_policy_of_the_first_token_is_pinned_only_on_demand(lab, refused, other):
    response = lab.authority.issue(REQUEST)
    bare = Trust(URL, (lab.authority.root.der,))
    assert refused(response, trust=bare) == "policy-not-pinned"
    assert refused(response, trust=dataclasses.replace(bare, policies=("1.2.3",))) == "wrong-policy"
    trust = Trust.pinned(URL, response, imprint=IMPRINT, request=REQUEST, roots=[lab.authority.root.der])
    assert trust == dataclasses.replace(bare, policies=(POLICY,))
    assert verify_token(response, imprint=IMPRINT, request=REQUEST, trust=trust).policy == POLICY
    with pytest.raises(TimestampError, match="leads to none") as caught:
        Trust.pinned(URL, response, imprint=IMPRINT, request=REQUEST, roots=[other.root.der])
    assert caught.value.code == "wrong-root"


# What is refused


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
    for junk in (b"", b"\x30\x00", b"\x30\x03\x02\x01\x01", IMPRINT):
        assert refused(response, request=junk) == "wrong-request"


@pytest.mark.parametrize("status", ["granted_with_mods", "rejection", "waiting"])
def test_a_status_other_than_granted(lab, refused, status):
    assert refused(lab.authority.issue(REQUEST, status=status)) == "status-not-granted"


def test_a_response_cut_at_every_length(lab, refused):
    response = lab.authority.issue(REQUEST)
    assert {refused(response[:length]) for length in range(len(response))} == {"truncated"}


def test_bytes_after_the_response(lab, refused):
    response = lab.authority.issue(REQUEST)
    assert refused(response + b"\0") == "trailing-bytes"
    assert refused(response + response) == "trailing-bytes"


@given(junk=st.binary(max_size=200))
def test_junk(lab, junk):
    for data in (junk, bytes([0x30, len(junk) % 128]) + junk):
        with pytest.raises(TimestampError):
            salt_of(data)


def test_two_signers(lab, resigned, refused):
    answer = tsp.TimeStampResp.load(lab.authority.issue(REQUEST))
    signers = answer["time_stamp_token"]["content"]["signer_infos"]
    answer["time_stamp_token"]["content"]["signer_infos"] = [signers[0], signers[0]]
    assert refused(answer.dump(force=True)) == "several-signers"


def test_a_signer_whose_certificate_is_missing_or_there_twice(lab, resigned, refused):
    asked = tsp.TimeStampReq.load(REQUEST)
    asked["cert_req"] = False
    assert refused(lab.authority.issue(asked.dump(force=True))) == "signer-missing"
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
        return answer.dump(force=True)

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
    assert refused(answer.dump(force=True)) == "not-a-timestamp"


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
    assert refused(answer.dump(force=True)) == "other-certificate"


def test_a_signature_over_a_weak_digest(lab, resigned, refused):
    def weak(info, signed, signer):
        signer["digest_algorithm"] = {"algorithm": "sha1"}
        signed["digest_algorithms"] = [{"algorithm": "sha1"}]

    assert refused(resigned(lab.authority.tsa, lab.authority.issue(REQUEST), weak)) == "weak-digest"


def test_a_signature_by_another_key(lab, other, resigned, refused):
    response = lab.authority.issue(REQUEST)
    assert refused(resigned(other.tsa, response, lambda *_: None)) == "bad-signature"
    assert verified(resigned(lab.authority.tsa, response, lambda *_: None), lab.authority).lab


# Every byte


def _span(response, part):
    start = response.index(part)
    assert response.count(part) == 1
    return range(start, start + len(part))


@pytest.mark.filterwarnings("ignore:Parsed a:UserWarning")
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_every_byte_flipped_is_refused_or_outside_what_is_signed(lab, rsa, kind):
    authority = lab.authority if kind == "ec" else rsa
    trust, response = authority.trust(URL), authority.issue(REQUEST)
    token = verify_token(response, imprint=IMPRINT, request=REQUEST, trust=trust)
    signed = tsp.TimeStampResp.load(response)["time_stamp_token"]["content"]
    signer = signed["signer_infos"][0]
    covered = {
        *_span(response, bytes(signed["encap_content_info"]["content"])),
        *_span(response, signer["signed_attrs"].contents),
        *_span(response, signer["signature"].native),
        *_span(response, authority.tsa.der),
        *_span(response, authority.intermediate.der),
    }
    passed = set()
    for place in range(len(response)):
        altered = bytearray(response)
        altered[place] ^= 1 << place % 8
        try:
            found = verify_token(bytes(altered), imprint=IMPRINT, request=REQUEST, trust=trust)
        except TimestampError:
            continue
        passed.add(place)
        assert found == token, place
    assert passed
    assert not passed & covered


# The salt


def test_added_certificates_do_not_change_the_salt(lab, other):
    response = lab.authority.issue(REQUEST)
    answer = tsp.TimeStampResp.load(response)
    answer["time_stamp_token"]["content"]["certificates"].append(cms.CertificateChoices.load(other.root.der))
    more = answer.dump(force=True)
    assert more != response
    assert verified(more, lab.authority).salt == verified(response, lab.authority).salt == salt_of(more)


def test_a_flipped_s_verifies_and_does_not_change_the_salt(lab):
    response = lab.authority.issue(REQUEST)
    answer = tsp.TimeStampResp.load(response)
    signed = answer["time_stamp_token"]["content"]
    r, s = decode_dss_signature(signed["signer_infos"][0]["signature"].native)
    signed["signer_infos"][0]["signature"] = encode_dss_signature(r, ORDER_P256 - s)
    flipped = answer.dump(force=True)
    assert flipped != response
    assert verified(flipped, lab.authority) == verified(response, lab.authority)
    smaller = encode_dss_signature(r, min(s, ORDER_P256 - s))
    assert salt_of(flipped) == hashlib.sha256(bytes(signed["encap_content_info"]["content"]) + smaller).digest()


def test_an_rsa_signature_goes_into_the_salt_as_it_is(rsa):
    response = rsa.issue(REQUEST)
    signed = tsp.TimeStampResp.load(response)["time_stamp_token"]["content"]
    signature = signed["signer_infos"][0]["signature"].native
    assert salt_of(response) == hashlib.sha256(bytes(signed["encap_content_info"]["content"]) + signature).digest()
    assert verified(response, rsa).salt == salt_of(response)


# Revocation and expiry


@pytest.mark.parametrize(
    ("reason", "after", "code"),
    [
        (ReasonFlags.superseded, 1, None),
        (ReasonFlags.cessation_of_operation, 1, None),
        (ReasonFlags.affiliation_changed, 1, None),
        (ReasonFlags.unspecified, 1, None),
        (ReasonFlags.superseded, -1, "revoked-at-gen-time"),
        (ReasonFlags.cessation_of_operation, 0, "revoked-at-gen-time"),
        (ReasonFlags.key_compromise, 1, "revoked-for-cause"),
        (ReasonFlags.ca_compromise, 1, "revoked-for-cause"),
        (ReasonFlags.certificate_hold, 1, "revoked-for-cause"),
        (ReasonFlags.privilege_withdrawn, 1, "revoked-for-cause"),
        (None, 1, "revoked-for-cause"),
        (None, -1, "revoked-for-cause"),
    ],
)
@pytest.mark.parametrize("of", ["tsa", "intermediate"])
def test_reasons_of_a_revocation(old, refused, of, reason, after, code):
    now = THEN + timedelta(days=30)
    response = old.issue(REQUEST, gen_time=THEN)
    crl = old.crl(of, revoked=THEN + timedelta(days=after), reason=reason, at=now)
    if code:
        assert refused(response, trust=old.trust(URL), crls=[crl], now=now) == code
    else:
        assert verified(response, old, crls=[crl], now=now).status == "valid"


def _list(party, *entries, at=THEN, extensions=()):
    builder = x509.CertificateRevocationListBuilder(party.certificate.subject, at, at + timedelta(days=7))
    for entry in entries:
        builder = builder.add_revoked_certificate(entry)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(party.key, hashes.SHA256()).public_bytes(Encoding.DER)


def test_a_certificate_that_was_invalid_before_it_was_revoked(old, refused):
    entry = x509.RevokedCertificateBuilder(old.tsa.certificate.serial_number, THEN + timedelta(days=5))
    entry = entry.add_extension(x509.CRLReason(ReasonFlags.superseded), False)
    late = entry.add_extension(x509.InvalidityDate(THEN.replace(tzinfo=None) + timedelta(days=1)), False)
    early = entry.add_extension(x509.InvalidityDate(THEN.replace(tzinfo=None) - timedelta(days=1)), False)
    response, now = old.issue(REQUEST, gen_time=THEN), THEN + timedelta(days=9)
    assert verified(response, old, crls=[_list(old.intermediate, late.build())], now=now).status == "valid"
    listed = _list(old.intermediate, early.build())
    assert refused(response, trust=old.trust(URL), crls=[listed], now=now) == "revoked-at-gen-time"


def test_a_list_that_is_not_signed_by_its_issuer(old, other, refused):
    response, now = old.issue(REQUEST, gen_time=THEN), THEN + timedelta(days=1)
    altered = bytearray(old.crl(at=now))
    altered[-1] ^= 1
    assert refused(response, trust=old.trust(URL), crls=[bytes(altered)], now=now) == "bad-crl"
    assert refused(response, trust=old.trust(URL), crls=[b"junk"], now=now) == "bad-crl"
    # One made with another key, under the same name, by somebody who says so, is somebody else's.
    forged = dataclasses.replace(other, tsa=old.tsa).crl(revoked=THEN, reason=ReasonFlags.key_compromise, at=now)
    token = verified(response, old, crls=[forged, old.crl("intermediate", at=now)], now=now)
    assert token.unrevoked_at is None
    nameless = _list(other.intermediate)
    assert refused(response, trust=old.trust(URL), crls=[nameless], now=now) == "bad-crl"


def test_every_byte_of_a_list_flipped_never_speaks_for_what_it_revokes(old):
    response, now = old.issue(REQUEST, gen_time=THEN), THEN + timedelta(days=1)
    listed = old.crl(revoked=now, reason=ReasonFlags.key_compromise, at=now)
    good, trust = old.crl("intermediate", at=now), old.trust(URL)
    for place in range(len(listed)):
        altered = bytearray(listed)
        altered[place] ^= 1
        try:
            token = verify_token(
                response, imprint=IMPRINT, request=REQUEST, trust=trust, crls=[good, bytes(altered)], now=now
            )
        except TimestampError:
            continue
        assert token.unrevoked_at is None, place


def test_a_certificate_expired_since_needs_lists_of_its_time(old):
    response = old.issue(REQUEST, gen_time=THEN)
    token = verified(response, old)
    assert (token.status, token.expired, token.unrevoked_at) == ("inconclusive", True, None)
    assert "expired on 2022-01-01" in token.reasons[0]
    for days, status in ((-1, "inconclusive"), (0, "valid"), (10, "valid"), (1000, "inconclusive")):
        at = THEN + timedelta(days=days)
        assert verified(response, old, crls=[old.crl(at=at)]).status == status, days
    lists = [old.crl(at=THEN + timedelta(days=9)), old.crl("intermediate", at=THEN + timedelta(days=3))]
    token = verified(response, old, crls=lists)
    assert (token.status, token.expired, token.reasons) == ("valid", True, ())
    assert token.unrevoked_at == THEN + timedelta(days=3)
    pem = x509.load_der_x509_crl(lists[0]).public_bytes(Encoding.PEM)
    assert verified(response, old, crls=[pem]).status == "valid"


def test_an_authority_without_issuer_expires_like_others(old):
    alone = certified("tsa", None, since=THEN, until=THEN + timedelta(days=9))
    authority = LabAuthority(alone, alone, alone)
    response = authority.issue(REQUEST, gen_time=THEN)
    assert verified(response, authority, now=THEN).status == "valid"
    token = verified(response, authority)
    assert (token.status, token.expired, token.unrevoked_at) == ("inconclusive", True, None)


def test_a_token_stamped_again_in_time_stays_valid(old):
    response = old.issue(REQUEST, gen_time=THEN)
    again = THEN + timedelta(days=400)
    token = verified(response, old, now=again)
    assert (token.status, token.expired) == ("valid", False)


def _scoped(url=None, **only):
    point = [x509.UniformResourceIdentifier(url)] if url else None
    usual = dict.fromkeys(("only_contains_user_certs", "only_contains_ca_certs", "indirect_crl"), False)
    usual |= {"only_some_reasons": None, "only_contains_attribute_certs": False, **only}
    return x509.IssuingDistributionPoint(point, None, **usual)


@pytest.mark.parametrize(
    ("extension", "status"),
    [
        (_scoped(f"{URL}/intermediate.crl"), "valid"),
        (_scoped(only_contains_user_certs=True), "valid"),
        (_scoped(f"{URL}/another.crl"), "inconclusive"),
        (_scoped(only_contains_ca_certs=True), "inconclusive"),
        (_scoped(only_contains_attribute_certs=True), "inconclusive"),
        (_scoped(indirect_crl=True), "inconclusive"),
        (_scoped(only_some_reasons=frozenset([ReasonFlags.superseded])), "inconclusive"),
        (x509.DeltaCRLIndicator(1), "inconclusive"),
    ],
)
def test_a_list_speaks_only_for_what_it_covers(old, extension, status):
    listed = _list(old.intermediate, at=THEN, extensions=[(extension, True)])
    assert verified(old.issue(REQUEST, gen_time=THEN), old, crls=[listed]).status == status


def test_a_list_of_certificates_of_holders_does_not_speak_for_authorities(old):
    response, now = old.issue(REQUEST, gen_time=THEN), THEN + timedelta(days=1)
    good = old.crl(at=now)
    users, authorities = (
        _list(old.root, at=now, extensions=[(_scoped(**{only: True}), True)])
        for only in ("only_contains_user_certs", "only_contains_ca_certs")
    )
    assert verified(response, old, crls=[good, users]).unrevoked_at is None
    assert verified(response, old, crls=[good, authorities]).unrevoked_at == now


# Asking


def test_a_request_asks_for_certificates_with_a_nonce_of_its_own(lab):
    one, two = (tsp.TimeStampReq.load(make_request(IMPRINT), strict=True).native for _ in range(2))
    assert one["message_imprint"]["hashed_message"] == IMPRINT
    assert one["message_imprint"]["hash_algorithm"]["algorithm"] == "sha256"
    assert one["cert_req"] is True
    assert one["nonce"] != two["nonce"]
    assert imprint_of(lab.authority.issue(REQUEST)) == IMPRINT
    with pytest.raises(InputError, match="32 bytes, not 20"):
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


# Trust


def test_trust_goes_to_json_and_back(lab, other):
    roots = lab.authority.root.certificate, other.root.certificate
    bundle = b"".join(root.public_bytes(Encoding.PEM) for root in roots)
    trust = Trust(URL, (bundle,), ("ab" * 32,), (POLICY, "1.2.3"))
    assert trust == Trust(URL, (lab.authority.root.der, other.root.der), ("AB" * 32,), (POLICY, "1.2.3"))
    document = json.loads(json.dumps(trust.to_json()))
    assert set(document) == {"url", "roots", "pins", "policies"}
    assert Trust.from_json(document) == trust


@pytest.mark.parametrize(
    "change",
    [
        {"roots": []},
        {"roots": ["junk"]},
        {"roots": [3]},
        {"pins": ["abcd"]},
        {"pins": ["x" * 64]},
        {"policies": ["not an oid"]},
        {"policies": None},
        {"url": None},
    ],
)
def test_trust_that_cannot_be_read(lab, change):
    document = {**lab.trust.to_json(), **change}
    with pytest.raises(TimestampError) as caught:
        Trust.from_json(document)
    assert caught.value.code == "bad-trust"
    for key in change:
        del document[key]
    with pytest.raises(TimestampError, match=r"url, roots, pins and policies"):
        Trust.from_json(document)


# The other implementation


def _openssl(*words):
    done = subprocess.run(["openssl", "ts", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_openssl_verifies_our_token(lab, rsa, tmp_path, kind):
    authority = lab.authority if kind == "ec" else rsa
    (tmp_path / "a.tsq").write_bytes(REQUEST)
    (tmp_path / "a.tsr").write_bytes(authority.issue(REQUEST))
    for name in ("root", "intermediate"):
        (tmp_path / name).write_bytes(getattr(authority, name).certificate.public_bytes(Encoding.PEM))
    chain = "-CAfile", tmp_path / "root", "-untrusted", tmp_path / "intermediate"
    code, said = _openssl("-verify", "-in", tmp_path / "a.tsr", "-queryfile", tmp_path / "a.tsq", *chain)
    assert code == 0, said
    assert "Verification: OK" in said
    digest = hashlib.sha256(b"something else").hexdigest()
    code, said = _openssl("-verify", "-in", tmp_path / "a.tsr", "-digest", digest, *chain)
    assert code == 1
    assert "message imprint mismatch" in said


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_we_verify_a_token_of_openssl(lab, rsa, tmp_path, digest, refused):
    """Also where it names its certificate by SHA-1 (RFC 2634)."""
    for name in ("tsa", "intermediate"):
        getattr(rsa, name).save(tmp_path, name)
    # Without `certs`: with it, openssl writes an unsorted set that strict parsers refuse.
    (tmp_path / "cnf").write_text(f"""[ts]
dir = {tmp_path}
serial = $dir/serial
crypto_device = builtin
signer_cert = $dir/tsa.crt
signer_key = $dir/tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.32473.7
digests = sha256
accuracy = secs:2, millisecs:500
ess_cert_id_alg = {digest}
""")
    (tmp_path / "serial").write_text("01")
    (tmp_path / "a.tsq").write_bytes(REQUEST)
    asked = "-queryfile", tmp_path / "a.tsq", "-out", tmp_path / "a.tsr"
    code, said = _openssl("-reply", "-config", tmp_path / "cnf", "-section", "ts", *asked)
    assert code == 0, said
    response = (tmp_path / "a.tsr").read_bytes()
    trust = Trust(URL, (rsa.root.der, rsa.intermediate.der), policies=("1.3.6.1.4.1.32473.7",))
    token = verify_token(response, imprint=IMPRINT, request=REQUEST, trust=trust)
    assert token.accuracy == 2.5
    assert token.serial == 2
    assert abs(token.gen_time - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert refused(response) == "wrong-root"
