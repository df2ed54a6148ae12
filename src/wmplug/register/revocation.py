"""Revocation lists (RFC 5280, section 5) for the certificates behind a timestamp."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from wmplug.errors import InputError, TimestampError
from wmplug.keys.files import read_bytes

# With these reasons an authority states that its key was never in wrong hands; with another one, or none, it does not
# (RFC 3161, section 4, item 1).
HARMLESS = {
    x509.ReasonFlags.unspecified,
    x509.ReasonFlags.affiliation_changed,
    x509.ReasonFlags.superseded,
    x509.ReasonFlags.cessation_of_operation,
}
# Errors of cryptography about bytes that are not a certificate or list, some only when a part is read.
UNREADABLE = (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, UnsupportedAlgorithm)


@dataclass(frozen=True)
class Unlisted:
    """A certificate that no current revocation list speaks for.

    Attributes:
        certificate: its subject (RFC 4514).
        points: URLs of the lists that would.
    """

    certificate: str
    points: tuple[str, ...]

    @classmethod
    def of(cls, certificate: x509.Certificate) -> "Unlisted":
        """The name of a certificate, and where its lists are."""
        return cls(certificate.subject.rfc4514_string(), tuple(points(certificate)))

    def __str__(self) -> str:
        where = f"fetch {' or '.join(self.points)}, and give it" if self.points else "give one"
        return f"no current revocation list speaks for the certificate of {self.certificate}: {where} (--crl)"


@dataclass(frozen=True)
class Given:
    """A revocation list that whoever checks gives, beside those that the owner kept.

    Attributes:
        name: its file, or its digest.
        data: DER or PEM.
    """

    name: str
    data: bytes

    @property
    def sha256(self) -> str:
        """SHA-256 of the data, hex."""
        return hashlib.sha256(self.data).hexdigest()

    def check_signature(self, chain: Sequence[bytes]) -> None:
        """Check that the issuer signed the list, if the list names one of a chain.

        Args:
            chain: certificates, DER, from the signer's to the root.

        Raises:
            InputError: another key signed it.
        """
        one = load(self.data)
        for issuer in map(x509.load_der_x509_certificate, chain[1:]):
            if _names(one, issuer) and not _signed(one, issuer):
                raise InputError(
                    f"{self.name}: the revocation list names {issuer.subject.rfc4514_string()}, which did not sign it: "
                    "fetch it again"
                )


def given(crls: Sequence[bytes | Path]) -> tuple[Given, ...]:
    """Read the lists that whoever checks gives.

    Args:
        crls: DER or PEM, one list in each, or files that hold it.

    Raises:
        InputError: one of them cannot be read, or holds something else.
    """
    return tuple(_given(one) for one in crls)


def _given(one: bytes | Path) -> Given:
    name = f"the list with SHA-256 {hashlib.sha256(one).hexdigest()}" if isinstance(one, bytes) else str(one)
    try:
        data = one if isinstance(one, bytes) else read_bytes(one)
        if (number := data.count(b"-----BEGIN")) > 1:
            raise ValueError(f"{number} parts in one PEM file; split it")
        load(data)
    except (OSError, ValueError, TimestampError) as error:
        raise InputError(f"{name} is not a revocation list ({error}): give one in DER or PEM") from None
    return Given(name, data)


def load(data: bytes) -> x509.CertificateRevocationList:
    """Read a list in DER or PEM.

    Raises:
        TimestampError: the data are not a list ("bad-crl").
    """
    try:
        pem = data.lstrip().startswith(b"-----BEGIN")
        return x509.load_pem_x509_crl(data) if pem else x509.load_der_x509_crl(data)
    except UNREADABLE as error:
        raise TimestampError(f"a revocation list cannot be read ({error}): fetch it again", code="bad-crl") from None


def speaking(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    lists: Sequence[x509.CertificateRevocationList],
    at: datetime,
) -> list[x509.CertificateRevocationList]:
    """The lists by which a certificate was reliable at a time.

    A list counts from that time on, and until the certificate expires: later ones need not mention it any more.

    Args:
        certificate: the certificate in question.
        issuer: its issuer.
        lists: lists of any issuers; those of others do not count.
        at: the time in question, aware.

    Raises:
        TimestampError: the certificate was revoked by then ("revoked-at-gen-time"), or later in a way that leaves its
            key in doubt ("revoked-for-cause"); or a list is not signed by the issuer that it names ("bad-crl").
    """
    found = []
    try:
        for one in lists:
            if not _names(one, issuer):
                continue
            if not _signed(one, issuer):
                text = f"a revocation list of {issuer.subject.rfc4514_string()} is not signed by it: fetch it again"
                raise TimestampError(text, code="bad-crl")
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                _judge(certificate, entry, at)
            if _covers(one, certificate) and at <= one.last_update_utc <= certificate.not_valid_after_utc:
                found.append(one)
    except UNREADABLE as error:
        raise TimestampError(f"a revocation list cannot be read ({error}): fetch it again", code="bad-crl") from None
    return found


def is_current(certificate: x509.Certificate, lists: Sequence[x509.CertificateRevocationList], now: datetime) -> bool:
    """Whether one of the lists that speak for a certificate is still its issuer's word.

    An older one may omit what came later. After a certificate's end no newer list need exist.

    Args:
        certificate: the certificate in question.
        lists: those that speak for it.
        now: time of the check, aware.
    """
    over = certificate.not_valid_after_utc < now
    return any(over or (one.next_update_utc is not None and now <= one.next_update_utc) for one in lists)


def points(certificate: x509.Certificate) -> list[str]:
    """URLs of the lists that would hold a certificate's revocation."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
    except (x509.ExtensionNotFound, *UNREADABLE):
        return []
    names = [name for point in found for name in point.full_name or ()]
    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]


def _names(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    """Whether a list names this issuer; an issuer with a new key keeps its name."""
    if revoked.issuer != issuer.subject:
        return False
    try:
        theirs = revoked.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return True
    return theirs in (None, own)


def _signed(revoked: x509.CertificateRevocationList, issuer: x509.Certificate) -> bool:
    return revoked.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]


def _judge(certificate: x509.Certificate, entry: x509.RevokedCertificate, at: datetime) -> None:
    text = f"the certificate of {certificate.subject.rfc4514_string()} was revoked on {entry.revocation_date_utc:%F %T}"
    try:
        reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason
    except x509.ExtensionNotFound:
        raise TimestampError(
            f"{text} without a reason: its key may be in wrong hands", code="revoked-for-cause"
        ) from None
    if reason not in HARMLESS:
        raise TimestampError(f"{text} ({reason.value}): its key may be in wrong hands", code="revoked-for-cause")
    since = [entry.revocation_date_utc]
    if (invalid := _invalidity(entry)) is not None:
        since.append(invalid)
    if min(since) <= at:
        raise TimestampError(f"{text} ({reason.value}), before the timestamp", code="revoked-at-gen-time")


def _invalidity(entry: x509.RevokedCertificate) -> datetime | None:
    try:
        return entry.extensions.get_extension_for_class(x509.InvalidityDate).value.invalidity_date_utc
    except x509.ExtensionNotFound:
        return None


def _covers(revoked: x509.CertificateRevocationList, certificate: x509.Certificate) -> bool:
    """Whether a certificate's absence from this list means that it is not revoked (RFC 5280, section 6.3.3)."""
    # A critical extension marks a delta list, and no other critical extension is known here.
    if any(e.critical and not isinstance(e.value, x509.IssuingDistributionPoint) for e in revoked.extensions):
        return False
    try:
        scope = revoked.extensions.get_extension_for_class(x509.IssuingDistributionPoint).value
    except x509.ExtensionNotFound:
        return True
    if scope.indirect_crl or scope.only_some_reasons or scope.only_contains_attribute_certs:
        return False
    if scope.only_contains_user_certs if _is_authority(certificate) else scope.only_contains_ca_certs:
        return False
    return scope.full_name is None or bool({name.value for name in scope.full_name} & set(points(certificate)))


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
