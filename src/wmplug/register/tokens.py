"""The parts of a timestamp response (RFC 3161, section 2.4.2), and the checks that need no decision of the owner."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from wmplug.errors import TimestampError
from wmplug.extras import need
from wmplug.register.revocation import UNREADABLE

with need("evidence"):
    import rfc3161_client
    from asn1crypto import parser, tsp

# Order of the group of each curve (SEC 2): with (r, s), (r, order - s) is a signature too.
_ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "secp521r1": int("1" + "F" * 65 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}
_DIGESTS = ("sha256", "sha384", "sha512")
_MOST_CERTIFICATES = 16


@dataclass(frozen=True)
class Response:
    """The parsed parts of a response, not verified yet.

    Attributes:
        received: the whole response, DER.
        imprint: hash algorithm and digest that the token is about.
        policy: OID.
        serial: number of the token.
        gen_time: aware, UTC.
        accuracy: seconds; None: not stated.
        nonce: nonce of the request; None: missing.
        digest: hash algorithm of the signature.
        named: hash algorithm and digest of the signer's certificate, as the signature covers them.
        salt: SHA-256(TSTInfo DER || signature value with the smaller s), 32 bytes.
        leaf: the signer's certificate.
        authority: its subject (RFC 4514).
        bag: all certificates in the response.
    """

    received: bytes
    imprint: tuple[str, bytes]
    policy: str
    serial: int
    gen_time: datetime
    accuracy: float | None
    nonce: int | None
    digest: str
    named: tuple[tuple[str, bytes], ...]
    salt: bytes
    leaf: x509.Certificate
    authority: str
    bag: tuple[x509.Certificate, ...]

    @classmethod
    def read(cls, received: bytes) -> "Response":
        """Parse a response.

        Raises:
            TimestampError: its form is wrong ("truncated", "trailing-bytes", "malformed", "not-a-timestamp",
                "several-signers", "signer-missing"), or it is a refusal ("status-not-granted").
        """
        try:
            length = parser.peek(received)
        except ValueError:
            raise refusal("truncated", f"the response ends too early ({len(received)} bytes): ask again") from None
        if length != len(received):
            raise refusal("trailing-bytes", f"{len(received) - length} bytes follow the response: it was altered")
        try:
            rfc3161_client.decode_timestamp_response(_plain(received))
            return cls._taken_apart(received)
        except (KeyError, IndexError, AttributeError, OverflowError, *UNREADABLE) as error:
            raise refusal("malformed", f"the response cannot be read ({error}): ask again") from None

    @classmethod
    def _taken_apart(cls, received: bytes) -> "Response":
        token = tsp.TimeStampResp.load(received, strict=True)["time_stamp_token"]
        signed = token["content"]
        if token["content_type"].native != "signed_data":
            raise refusal("not-a-timestamp", "the response holds no signed data: ask again")
        if signed["encap_content_info"]["content_type"].native != "tst_info":
            raise refusal("not-a-timestamp", "what is signed is not a timestamp: ask again")
        if len(signed["signer_infos"]) != 1:
            raise refusal("several-signers", f"the token has {len(signed['signer_infos'])} signers, not one: ask again")
        signer = signed["signer_infos"][0]
        bag = [choice.chosen for choice in signed["certificates"]]
        leaf = _leaf(signer["sid"].chosen, bag)
        encoded = bytes(signed["encap_content_info"]["content"])
        info = tsp.TSTInfo.load(encoded, strict=True).native
        if not isinstance(info["gen_time"], datetime):
            raise ValueError("its time is in the year 0")
        about, accuracy = info["message_imprint"], info["accuracy"]
        return cls(
            received=received,
            imprint=(about["hash_algorithm"]["algorithm"], about["hashed_message"]),
            policy=tsp.TSTInfo.load(encoded)["policy"].dotted,
            serial=info["serial_number"],
            gen_time=info["gen_time"].astimezone(timezone.utc),
            accuracy=accuracy
            and sum((accuracy[k] or 0) / n for k, n in (("seconds", 1), ("millis", 1e3), ("micros", 1e6))),
            nonce=info["nonce"],
            digest=signer["digest_algorithm"]["algorithm"].native,
            named=tuple(_named(signer["signed_attrs"])),
            salt=hashlib.sha256(encoded + _smaller(signer["signature"].native, leaf)).digest(),
            leaf=leaf,
            authority=leaf.subject.rfc4514_string(),
            bag=tuple(x509.load_der_x509_certificate(one.dump()) for one in bag),
        )

    def compare(self, imprint: bytes, request: bytes | None) -> None:
        """Check that the token is about an imprint, and answers a request.

        Raises:
            TimestampError: "wrong-imprint", "wrong-request", "nonce-missing", "wrong-nonce".
        """
        if self.imprint != ("sha256", imprint):
            raise refusal("wrong-imprint", f"the token is not about {imprint.hex()}: it belongs to something else")
        if request is None:
            return
        try:
            asked = tsp.TimeStampReq.load(request, strict=True).native
            wanted, nonce = asked["message_imprint"]["hashed_message"], asked["nonce"]
        except (ValueError, TypeError) as error:
            raise refusal("wrong-request", f"the request cannot be read ({error}): restore it from a copy") from None
        if wanted != imprint:
            raise refusal("wrong-request", f"the request is not about {imprint.hex()}: it belongs to something else")
        if nonce is not None and self.nonce is None:
            raise refusal("nonce-missing", "the token lacks the nonce of the request: it may be an old one")
        if nonce != self.nonce:
            raise refusal("wrong-nonce", "the token has another nonce than the request: it answers another one")

    def chain(self, trusted: Sequence[x509.Certificate]) -> list[x509.Certificate]:
        """The certificates from the signer's to a root, each valid when the token was made.

        Args:
            trusted: roots; those that are not self-issued are intermediate certificates.

        Raises:
            TimestampError: "wrong-root", "expired-at-gen-time", "not-yet-valid".
        """
        roots = [one for one in trusted if one.issuer == one.subject]
        chain = _path(self.leaf, roots, [*trusted, *self.bag])
        if chain is None:
            raise refusal(
                "wrong-root", f"{self.authority} leads to none of the trusted roots: pin its root, if you trust it"
            )
        for one in chain:
            subject = f"the certificate of {one.subject.rfc4514_string()}, for a token of {self.gen_time:%F}"
            if self.gen_time > one.not_valid_after_utc:
                raise refusal(
                    "expired-at-gen-time", f"{subject}, had expired on {one.not_valid_after_utc:%F}: do not use it"
                )
            if self.gen_time < one.not_valid_before_utc:
                raise refusal(
                    "not-yet-valid", f"{subject}, begins only on {one.not_valid_before_utc:%F}: do not use it"
                )
        return chain

    def check_signer(self) -> None:
        """Check that the signer's certificate is for timestamps (RFC 3161, section 2.3), and the one meant (RFC 5816).

        Raises:
            TimestampError: "eku-missing", "eku-not-alone", "eku-not-critical", "certificate-not-named",
                "other-certificate".
        """
        subject = f"the certificate of {self.authority}"
        try:
            usage = self.leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
        except (x509.ExtensionNotFound, *UNREADABLE):
            raise refusal("eku-missing", f"{subject} is not for timestamps: use another authority") from None
        if list(usage.value) != [ExtendedKeyUsageOID.TIME_STAMPING]:
            found = ", ".join(one.dotted_string for one in usage.value)
            raise refusal("eku-not-alone", f"{subject} is for {found}, not for timestamps alone: use another authority")
        if not usage.critical:
            raise refusal(
                "eku-not-critical", f"{subject} is for timestamps, but not critically so: use another authority"
            )
        if not self.named:
            raise refusal("certificate-not-named", "the signature names no certificate: use another authority")
        encoded = self.leaf.public_bytes(Encoding.DER)
        for algorithm, digest in self.named:
            # RFC 2634 has SHA-1: here one would need a second preimage, not a collision.
            if algorithm not in ("sha1", *_DIGESTS) or hashlib.new(algorithm, encoded).digest() != digest:
                raise refusal("other-certificate", f"{subject} came with the token, but the signature names another")

    def check_signature(self, chain: Sequence[x509.Certificate]) -> None:
        """Check the signature of the token and of each certificate.

        Args:
            chain: from the signer's certificate to the root.

        Raises:
            TimestampError: "weak-digest", "bad-signature".
        """
        if self.digest not in _DIGESTS:
            raise refusal("weak-digest", f"the token is signed over {self.digest}: use another authority")
        # Built anew each time, with its own lists: the builder's methods change a list that builders share.
        builder = rfc3161_client.VerifierBuilder(roots=[chain[-1]], intermediates=list(chain[1:-1]))
        try:
            builder.build().verify(rfc3161_client.decode_timestamp_response(_plain(self.received)), self.imprint[1])
        except (rfc3161_client.VerificationError, ValueError) as error:
            raise refusal("bad-signature", f"the signature does not hold ({error}): the token was altered") from None


def _plain(received: bytes) -> bytes:
    """The response as OpenSSL's reader wants it: status 0, sets in DER's order. None of that is signed.

    Raises:
        TimestampError: "status-not-granted".
    """
    info = tsp.PKIStatusInfo.load(parser.parse(received)[4])
    status = info["status"].native
    if status not in ("granted", "granted_with_mods"):
        texts = "; ".join(info["status_string"].native or ())
        raise refusal("status-not-granted", f"the authority answered {status!r}, not 'granted', with {texts!r}")
    answer = tsp.TimeStampResp.load(received)
    if status != "granted":
        answer["status"] = {"status": "granted"}
    signed = answer["time_stamp_token"]["content"]
    for name in ("certificates", "crls"):
        encoded = [one.dump() for one in signed[name]] if signed[name].native is not None else []
        if encoded != sorted(encoded):
            signed[name] = sorted(signed[name], key=lambda one: one.dump())
    plain: bytes = answer.dump()
    return plain


def refusal(code: str, text: str) -> TimestampError:
    """The error for a refused token."""
    return TimestampError(text, code=code)


def _leaf(named: Any, bag: Sequence[Any]) -> x509.Certificate:
    """The certificate that a SignerIdentifier names."""
    issuer, serial = named["issuer"].dump(), named["serial_number"].native
    found = {one.dump() for one in bag if one.issuer.dump() == issuer and one.serial_number == serial}
    if len(found) != 1 or len(bag) > _MOST_CERTIFICATES:
        count = f"{len(bag)} certificates came with the token, {len(found)} of them its signer's"
        raise refusal("signer-missing", f"{count}: one is needed, among at most {_MOST_CERTIFICATES}")
    return x509.load_der_x509_certificate(found.pop())


def _named(attributes: Any) -> Iterator[tuple[str, bytes]]:
    for attribute in attributes:
        kind = attribute["type"].native
        if kind == "content_type" and attribute["values"].native != ["tst_info"]:
            raise refusal("not-a-timestamp", "the signature was made for something other than a timestamp: ask again")
        if kind in ("signing_certificate", "signing_certificate_v2"):
            first = attribute["values"][0]["certs"][0].native
            yield first.get("hash_algorithm", {"algorithm": "sha1"})["algorithm"], first["cert_hash"]


def _smaller(signature: bytes, leaf: x509.Certificate) -> bytes:
    """An ECDSA signature with the smaller of its two s; any other kind as it is."""
    key = leaf.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        return signature
    if key.curve.name not in _ORDERS:
        raise refusal("malformed", f"the curve {key.curve.name} is not known here: use another authority")
    r, s = decode_dss_signature(signature)
    return encode_dss_signature(r, min(s, _ORDERS[key.curve.name] - s))


def _path(
    leaf: x509.Certificate, roots: Sequence[x509.Certificate], pool: Sequence[x509.Certificate]
) -> list[x509.Certificate] | None:
    """The shortest path from a certificate to a root; visits each certificate once, even if some certify each other."""
    paths, seen = [[leaf]], {leaf}
    for path in paths:
        if path[-1] in roots:
            return path
        issuers = {one for one in pool if one not in seen and _issued(one, path[-1])}
        seen |= issuers
        paths += [[*path, issuer] for issuer in issuers]
    return None


def _issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, *UNREADABLE):
        return False
    return True
