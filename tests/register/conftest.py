"""A lab authority that answers on loopback, and tokens altered by whoever holds its key."""

import hashlib
import socket
from dataclasses import dataclass
from pathlib import Path

import pytest
from asn1crypto import cms, tsp

from wmplug.register import authority
from wmplug.register.authority import LabAuthority
from wmplug.register.timestamps import Trust


@dataclass(frozen=True)
class Lab:
    """An authority that is being served."""

    folder: Path
    url: str
    authority: LabAuthority
    trust: Trust


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    """One authority (P-256) for all tests, served at `lab.url` with its revocation lists."""
    folder = tmp_path_factory.mktemp("lab")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    made = LabAuthority.create(folder, url=f"http://127.0.0.1:{port}")
    with authority.serve(folder, port=port) as url:
        yield Lab(folder, url, made, made.trust(url))


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
