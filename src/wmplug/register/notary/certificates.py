"""The signature of a notary's certificate, and the rows that certificates spent; for whoever holds one."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import rfc8785
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from wmplug.errors import NotaryError
from wmplug.register import Entry
from wmplug.register.statements import keyid_of, pre_authentication

SCHEMA = "wmplug/certificate/1"
TYPE = "application/vnd.wmplug.certificate+json"


def verify(signed: Mapping[str, Any], public: bytes) -> dict[str, Any]:
    """The contents of a certificate, if this notary signed it; anybody can check that.

    Args:
        signed: the document in certificate.json.
        public: the notary's Ed25519 key, 32 bytes, from a source other than the certificate.

    Raises:
        NotaryError: another key signed it, or it was edited.
    """
    try:
        document: dict[str, Any] = signed["certificate"]
        check_signature(document, signed["signature"], public, TYPE)
        if document["schema"] != SCHEMA:
            raise ValueError(document["schema"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise NotaryError(
            f"this is not a certificate ({type(error).__name__}: {error}): give certificate.json"
        ) from None
    return document


def check_signature(document: Mapping[str, Any], signature: Mapping[str, Any], public: bytes, kind: str) -> None:
    """Check that a key signed a document as one of a kind.

    Raises:
        NotaryError: it did not.
    """
    try:
        if signature["keyid"] != keyid_of(public):
            raise NotaryError("it is signed with another notary's key: open the keys of the notary who heard the case")
        signed = pre_authentication(rfc8785.dumps(dict(document)), kind)
        Ed25519PublicKey.from_public_bytes(public).verify(bytes.fromhex(signature["sig"]), signed)
    except InvalidSignature:
        raise NotaryError("its signature does not fit, so it was edited since it was signed: restore it") from None


def spent_rows(entries: Iterable[Entry], watermark: str, notaries: Collection[str]) -> frozenset[int]:
    """The rows of a watermark that certificates of these notaries asked, as the register's owner recorded them.

    What an owner spends alone is an owner's choice, so it does not count here.

    Args:
        entries: those of the register.
        watermark: public id.
        notaries: their Ed25519 keys, hex.
    """
    recorded = (entry.body.get("certificate") for entry in entries if entry.type == "trigger.spent")
    return frozenset(row for signed in recorded for row in _rows(signed, watermark, notaries))


def _rows(signed: Any, watermark: str, notaries: Collection[str]) -> list[int]:
    """The rows of one certificate; none if it is of another watermark, or of a notary who does not count."""
    for notary in notaries:
        try:
            result = verify(signed, bytes.fromhex(notary))["result"]
            if result["watermark"]["id"] == watermark:
                return [int(row) for row in result["rows_asked"]]
        except (NotaryError, KeyError, TypeError, ValueError, AttributeError):
            continue
    return []
