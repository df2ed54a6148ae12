"""A request, and what is asked of the response to it."""

import dataclasses
import hashlib
from datetime import datetime, timezone

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from wmplug.register.authority import Party
from wmplug.register.timestamps import make_request, verify_token

IMPRINT = hashlib.sha256(b"an entry").digest()
REQUEST = make_request(IMPRINT)
URL = "http://tsa.example"
THEN = datetime(2020, 6, 1, 12, 0, tzinfo=timezone.utc)


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
