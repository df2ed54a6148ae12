import dataclasses
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ReasonFlags
from issued import IMPRINT, REQUEST, THEN, URL, verified

from wmplug.errors import TimestampError
from wmplug.register.authority import LabAuthority, certified
from wmplug.register.timestamps import verify_token


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


@pytest.mark.once
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


def test_a_list_speaks_until_it_runs_out_or_the_certificate_does(old):
    response = old.issue(REQUEST, gen_time=THEN)
    lists = [old.crl(at=THEN), old.crl("intermediate", at=THEN)]
    year = timedelta(days=365)
    for after, silent in (
        (timedelta(days=7), []),
        (timedelta(days=7, seconds=1), ["tsa", "intermediate"]),
        (2 * year, ["intermediate"]),  # the lists after its end need not mention the timestamping certificate
        (13 * year, []),
    ):
        token = verified(response, old, crls=lists, now=THEN, checked=THEN + after)
        assert [one.certificate.partition("(")[2][:-1] for one in token.unlisted] == silent, after
    assert len(verified(response, old, crls=lists[1:], now=THEN).unlisted) == 1


def test_an_authority_without_issuer_expires_like_others(old):
    alone = certified("tsa", None, since=THEN, until=THEN + timedelta(days=9))
    authority = LabAuthority(alone, alone, alone)
    response = authority.issue(REQUEST, gen_time=THEN)
    assert verified(response, authority, now=THEN).status == "valid"
    assert verified(response, authority, now=THEN).unlisted == ()  # a root needs no list
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
