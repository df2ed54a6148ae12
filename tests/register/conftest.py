"""Tokens altered by whoever holds an authority's key."""

import hashlib

import pytest
from asn1crypto import cms, tsp


@pytest.fixture(scope="session")
def resigned():
    """Alters tokens as only the holder of a key can."""
    return _resigned


def _resigned(by, response, edit):
    """A response with `edit(info, signed, signer)` applied to it, and then signed by a party over what it says."""
    answer = tsp.TimeStampResp.load(response)
    signed = answer["time_stamp_token"]["content"]
    info = tsp.TSTInfo.load(bytes(signed["encap_content_info"]["content"]))
    signer = signed["signer_infos"][0]
    edit(info, signed, signer)
    signed["encap_content_info"]["content"] = info
    kept = [one for one in signer["signed_attrs"] if one["type"].native != "message_digest"]
    digest = hashlib.new(signer["digest_algorithm"]["algorithm"].native, info.dump(force=True)).digest()
    attributes = cms.CMSAttributes([*kept, {"type": "message_digest", "values": [digest]}])
    signer["signed_attrs"] = attributes
    signer["signature"] = by.sign(attributes.dump())
    return answer.dump(force=True)
