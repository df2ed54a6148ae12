import json

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from issued import URL

from wmplug.errors import TimestampError
from wmplug.register.authority import POLICY
from wmplug.register.timestamps import Trust


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
