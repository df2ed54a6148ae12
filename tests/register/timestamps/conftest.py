"""Authorities, and tokens altered by whoever holds an authority's key."""

import hashlib
from datetime import datetime, timezone

import pytest
from asn1crypto import cms, tsp
from issued import IMPRINT, REQUEST, URL

from wmplug.errors import TimestampError
from wmplug.register.authority import LabAuthority
from wmplug.register.timestamps import verify_token


@pytest.fixture(scope="session")
def rsa(tmp_path_factory):
    return LabAuthority.create(tmp_path_factory.mktemp("rsa"), url=URL, kind="rsa")


@pytest.fixture(scope="session")
def old(tmp_path_factory):
    """An authority whose timestamping certificate was good in 2020 and 2021."""
    since, until = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in (2020, 2022))
    return LabAuthority.create(tmp_path_factory.mktemp("old"), url=URL, since=since, until=until)


@pytest.fixture(scope="session")
def other(tmp_path_factory):
    return LabAuthority.create(tmp_path_factory.mktemp("other"), url=URL)


@pytest.fixture
def refused(lab):
    """Calls verify_token and gives the code of the refusal."""

    def code(response, *, imprint=IMPRINT, request=REQUEST, trust=lab.trust, **rest):
        with pytest.raises(TimestampError) as caught:
            verify_token(response, imprint=imprint, request=request, trust=trust, **rest)
        assert "None" not in str(caught.value)  # it names what it refuses
        return caught.value.code

    return code


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
    digest = hashlib.new(signer["digest_algorithm"]["algorithm"].native, info.dump()).digest()
    attributes = cms.CMSAttributes([*kept, {"type": "message_digest", "values": [digest]}])
    signer["signed_attrs"] = attributes
    signer["signature"] = by.sign(attributes.dump())
    return answer.dump()
