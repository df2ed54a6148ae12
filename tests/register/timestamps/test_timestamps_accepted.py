import dataclasses
import hashlib
from datetime import datetime, timezone

import pytest
from asn1crypto import tsp
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from issued import IMPRINT, REQUEST, URL, verified

from wmplug.errors import TimestampError
from wmplug.register.authority import POLICY
from wmplug.register.timestamps import Trust, make_request, verify_token


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
    assert verified(resigned(lab.authority.tsa, response, finer), lab.authority).accuracy == 0.25 + 0.0005
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


def _with_certificates(response, arrange):
    """The response with its certificates, and a list of revocations twice, in another order: none of it is signed."""
    answer = tsp.TimeStampResp.load(response)
    signed = answer["time_stamp_token"]["content"]
    found = [one.dump() for one in signed["certificates"]]
    joined = b"".join(found)
    assert response.count(joined) == 1
    return response.replace(joined, b"".join(arrange(found)))


@pytest.mark.parametrize("kind", ["ec", "rsa"])
@pytest.mark.parametrize("arrange", [sorted, lambda found: sorted(found, reverse=True)])
def test_certificates_may_come_in_any_order(lab, rsa, kind, arrange):
    by = lab.authority if kind == "ec" else rsa
    response = by.issue(REQUEST)
    moved = _with_certificates(response, arrange)
    assert (verified(moved, by).status, verified(moved, by).salt) == ("valid", verified(response, by).salt)


def test_an_order_of_certificates_saves_no_altered_token(lab, refused):
    moved = _with_certificates(lab.authority.issue(REQUEST), lambda found: sorted(found, reverse=True))
    imprint = moved.rindex(IMPRINT)
    assert refused(moved[:imprint] + bytes(32) + moved[imprint + 32 :]) in ("wrong-imprint", "bad-signature")
    assert refused(moved[:-1] + bytes([moved[-1] ^ 1])) == "bad-signature"


def test_a_token_granted_with_modifications_is_judged_by_what_it_says(lab, other, refused):
    response = lab.authority.issue(REQUEST, status="granted_with_mods")
    assert verified(response, lab.authority).status == "valid"
    assert refused(response, imprint=bytes(32)) == "wrong-imprint"
    assert refused(other.issue(REQUEST, status="granted_with_mods")) == "wrong-root"
