"""Revocation lists (RFC 5280, section 5) for the certificates behind a timestamp."""

from collections.abc import Sequence
from datetime import datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from wmplug.errors import TimestampError

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


def spoken_for(
    certificate: x509.Certificate,
    issuer: x509.Certificate,
    lists: Sequence[x509.CertificateRevocationList],
    at: datetime,
) -> datetime | None:
    """The latest issue time of a list by which a certificate was reliable at a time; None without such a list.

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
    times = []
    try:
        for one in lists:
            if not _names(one, issuer):
                continue
            if not one.is_signature_valid(issuer.public_key()):  # type: ignore[arg-type]
                text = f"a revocation list of {issuer.subject.rfc4514_string()} is not signed by it: fetch it again"
                raise TimestampError(text, code="bad-crl")
            entry = one.get_revoked_certificate_by_serial_number(certificate.serial_number)
            if entry is not None:
                _judge(certificate, entry, at)
            if _covers(one, certificate) and at <= one.last_update_utc <= certificate.not_valid_after_utc:
                times.append(one.last_update_utc)
    except UNREADABLE as error:
        raise TimestampError(f"a revocation list cannot be read ({error}): fetch it again", code="bad-crl") from None
    return max(times, default=None)


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
