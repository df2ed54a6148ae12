import hashlib

import pytest
from asn1crypto import cms, tsp
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from issued import IMPRINT, REQUEST, URL, verified

from wmplug.errors import TimestampError
from wmplug.register.timestamps import salt_of, verify_token

pytestmark = pytest.mark.once
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


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
    more = answer.dump()
    assert more != response
    assert verified(more, lab.authority).salt == verified(response, lab.authority).salt == salt_of(more)


def test_a_flipped_s_verifies_and_does_not_change_the_salt(lab):
    response = lab.authority.issue(REQUEST)
    answer = tsp.TimeStampResp.load(response)
    signed = answer["time_stamp_token"]["content"]
    r, s = decode_dss_signature(signed["signer_infos"][0]["signature"].native)
    signed["signer_infos"][0]["signature"] = encode_dss_signature(r, ORDER_P256 - s)
    flipped = answer.dump()
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
