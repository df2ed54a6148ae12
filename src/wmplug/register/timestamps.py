"""Timestamps (RFC 3161): a request to an authority, and the check of its token, offline and years later.

A token states that a SHA-256 existed at a time. rfc3161-client, hence OpenSSL, verifies it. This module adds the checks
that these leave open: which certificate was meant (RFC 5816), revocation, a time in the future, the policy, the pins.
"""

import hashlib
import http.client
import itertools
import secrets
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Literal
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wmplug.errors import InputError, TimestampError
from wmplug.extras import need
from wmplug.register import revocation, tokens

with need("evidence"):
    from asn1crypto import tsp

REQUEST = "application/timestamp-query"
REPLY = "application/timestamp-reply"
# Part of the subject of every certificate of a lab authority, so that its tokens cannot pass for real ones.
LAB = "LAB ONLY - NOT ATTESTED"
# The authority's clock and this machine's need not agree to the second.
SKEW = timedelta(minutes=5)

_MOST = {REPLY: 1 << 16, "crl": 1 << 24}


@dataclass(frozen=True)
class Trust:
    """An authority, and an owner's decision about the tokens to accept from it.

    Attributes:
        url: its address.
        roots: certificates, DER; PEM (one or more in each) is converted.
        pins: SHA-256 (hex) of timestamping certificates or of their SubjectPublicKeyInfo; empty: any below the roots.
        policies: OIDs that a token may have; empty: none, since the owner must read a policy's promises first.
    """

    url: str
    roots: tuple[bytes, ...] = field(repr=False)
    pins: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        try:
            loaded = [certificate for root in self.roots for certificate in _certificates(root)]
            object.__setattr__(self, "roots", tuple(certificate.public_bytes(Encoding.DER) for certificate in loaded))
            object.__setattr__(self, "pins", tuple(bytes.fromhex(pin).hex() for pin in self.pins))
            object.__setattr__(self, "policies", tuple(x509.ObjectIdentifier(o).dotted_string for o in self.policies))
        except (ValueError, TypeError) as error:
            raise TimestampError(
                f"the trust in {self.url} cannot be read ({error}): give PEM roots, hex pins and OIDs in dots",
                code="bad-trust",
            ) from None
        if not isinstance(self.url, str) or not self.roots or any(len(pin) != 64 for pin in self.pins):
            raise TimestampError(
                f"the trust in {self.url} needs a URL, a root certificate, and pins of 64 hex digits", code="bad-trust"
            )

    @classmethod
    def pinned(cls, url: str, response: bytes, *, imprint: bytes, request: bytes, roots: Sequence[bytes]) -> "Trust":
        """Set up an authority from its first answer, and pin the policy of this token.

        Show the owner the result: to accept a policy is a decision.

        Args:
            url: address of the authority.
            response: its answer to `request`.
            imprint: the SHA-256 in the request, 32 bytes.
            request: the request as sent.
            roots: certificates (PEM or DER) from a source other than the answer.

        Raises:
            TimestampError: the answer fails a check (the policy is not checked).
        """
        policy = tokens.Response.read(response).policy
        trust = cls(url, tuple(roots), policies=(policy,))
        verify_token(response, imprint=imprint, request=request, trust=trust)
        return trust

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Trust":
        """Read one element of policy.json's "tsa" list.

        Raises:
            TimestampError: `to_json` does not write such a document ("bad-trust").
        """
        try:
            roots = tuple(root.encode() for root in document["roots"])
            return cls(document["url"], roots, tuple(document["pins"]), tuple(document["policies"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise TimestampError(
                f"a timestamp authority in the policy lacks or garbles {error}: it needs url, roots, pins and policies",
                code="bad-trust",
            ) from None

    def to_json(self) -> dict[str, Any]:
        """{"url", "roots": [PEM], "pins": [hex], "policies": [OID]}."""
        roots = [x509.load_der_x509_certificate(root).public_bytes(Encoding.PEM).decode() for root in self.roots]
        return {"url": self.url, "roots": roots, "pins": list(self.pins), "policies": list(self.policies)}


@dataclass(frozen=True)
class Token:
    """The facts of a verified timestamp.

    Attributes:
        gen_time: when the imprint existed, by the authority's clock; aware, UTC.
        accuracy: of `gen_time` in seconds, either way; None: not stated.
        serial: number of the token at this authority.
        policy: OID under which it was issued.
        authority: subject of the timestamping certificate (RFC 4514).
        certificates: DER, from the timestamping certificate to the root.
        salt: 32 bytes that nobody could know before, see `salt_of`.
        lab: whether a lab authority made it, which proves nothing to others.
        expired: whether a certificate below the root has expired since.
        status: "valid", or "inconclusive": nothing contradicts the token, but too little confirms it.
        reasons: why it is inconclusive; empty if valid.
        unrevoked_at: issue time of lists, at `gen_time` or later, that confirm all certificates, or None.
        unlisted: certificates below the root that none of these lists confirms until now.
    """

    gen_time: datetime
    accuracy: float | None
    serial: int
    policy: str
    authority: str
    certificates: tuple[bytes, ...]
    salt: bytes
    lab: bool
    expired: bool
    status: Literal["valid", "inconclusive"]
    reasons: tuple[str, ...]
    unrevoked_at: datetime | None
    unlisted: tuple[revocation.Unlisted, ...]


def make_request(imprint: bytes) -> bytes:
    """A request (DER) for a timestamp over a SHA-256, with a nonce, asking for certificates.

    Args:
        imprint: 32 bytes.
    """
    if len(imprint) != 32:
        raise InputError(f"the imprint has {len(imprint)} bytes: give a SHA-256, 32 bytes")
    request: bytes = tsp.TimeStampReq(
        {
            "version": "v1",
            "message_imprint": {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": imprint},
            "nonce": secrets.randbits(63),  # some authorities read nonces into 64 bits, with sign
            "cert_req": True,
        }
    ).dump()
    return request


def fetch(url: str, request: bytes, *, timeout: float = 20) -> bytes:
    """Send a request to an authority (RFC 3161, section 3.4).

    Args:
        url: http or https.
        request: from `make_request`.
        timeout: seconds, for the whole exchange.

    Returns:
        The response as received, unchecked.

    Raises:
        TimestampError: "bad-url", "unreachable" (with its cause), "not-a-reply", "too-large".
    """
    asked = urllib.request.Request(url, request, {"Content-Type": REQUEST, "Accept": REPLY}) if _http(url) else None
    if asked is None:
        raise TimestampError(
            f"{url!r} is not the address of a timestamp authority: give http:// or https://", code="bad-url"
        )
    body, kind = _exchange(asked, timeout, _MOST[REPLY])
    if kind != REPLY:
        raise TimestampError(f"{url} answered with {kind}, not {REPLY}: is that an authority?", code="not-a-reply")
    return body


def fetch_crls(certificates: Sequence[bytes], *, timeout: float = 20) -> list[bytes]:
    """Fetch the revocation lists that certificates name, as far as they are available.

    Args:
        certificates: DER; those of a verified token (`Token.certificates`).
        timeout: seconds for each.

    Returns:
        Lists in DER, unchecked. If a server does not answer, its list is missing and its certificates stay unconfirmed.
    """
    urls = {
        url: None
        for one in certificates
        for url in revocation.points(x509.load_der_x509_certificate(one))
        if _http(url)
    }
    lists = []
    for url in urls:
        try:
            body, _ = _exchange(urllib.request.Request(url), timeout, _MOST["crl"])
            lists.append(revocation.load(body).public_bytes(Encoding.DER))
        except TimestampError:
            continue
    return lists


class _Following(urllib.request.HTTPRedirectHandler):
    """Send a request for a timestamp again where a redirect points; urllib would send a GET without it, or nothing.

    What an authority says is believed by its signature, not by its address; a redirect from https to http is refused.
    """

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.data is None or code not in (301, 302, 307, 308):
            return super().redirect_request(req, fp, code, msg, headers, newurl)
        if not _http(newurl) or (req.type == "https" and urlsplit(newurl).scheme != "https"):
            raise urllib.error.HTTPError(newurl, code, f"redirected to {newurl!r}, which is not safe", headers, fp)
        kept = {name: value for name, value in req.header_items() if name in ("Content-type", "Accept")}
        return urllib.request.Request(newurl, req.data, kept)

    # Python 3.10 does not know 308.
    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


def _opener(url: str) -> urllib.request.OpenerDirector:
    # A proxy set in the environment is for the world outside; a lab authority is on this machine.
    local = urlsplit(url).hostname in ("127.0.0.1", "localhost")
    return urllib.request.build_opener(_Following, urllib.request.ProxyHandler({} if local else None))


def _http(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _exchange(request: urllib.request.Request, timeout: float, most: int) -> tuple[bytes, str]:
    """Body and content type of an answer."""
    url, body, end = request.full_url, b"", time.monotonic() + timeout
    try:
        with _opener(url).open(request, timeout=timeout) as answer:
            # Not in one read: an authority that sends a byte now and then would hold up a training run for hours.
            while chunk := answer.read1(1 << 16):
                body += chunk
                if len(body) > most:
                    raise TimestampError(
                        f"{url} sent more than {most} bytes, too many for a timestamp", code="too-large"
                    )
                if time.monotonic() > end:
                    raise TimeoutError(f"not done after {timeout} s")
            return body, answer.headers.get_content_type()
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()
        text = f"{url} cannot be reached ({error}): try again later, or another authority"
        raise TimestampError(text, code="unreachable") from error


def verify_token(
    response: bytes,
    *,
    imprint: bytes,
    request: bytes | None,
    trust: Trust,
    crls: Sequence[bytes] = (),
    now: datetime | None = None,
    checked: datetime | None = None,
) -> Token:
    """Check a response, offline.

    Args:
        response: DER of a TimeStampResp, as received.
        imprint: the SHA-256 that it must be about, 32 bytes.
        request: DER as sent; None: the nonce is not compared.
        trust: the authority and the tokens to accept from it.
        crls: revocation lists, DER or PEM, of any issuers.
        now: time by which the token is known to have existed; default: now. If the token was itself timestamped again
            while its certificate was valid, give the later token's `gen_time`.
        checked: time of the check, at which lists must be current; default: `now`.

    Raises:
        TimestampError: the token is refused. Codes: of form, "truncated", "trailing-bytes", "malformed",
            "not-a-timestamp", "several-signers", "weak-digest"; of the answer, "status-not-granted", "wrong-request",
            "wrong-imprint", "nonce-missing", "wrong-nonce"; of certificates, "signer-missing", "wrong-root",
            "eku-missing", "eku-not-critical", "eku-not-alone", "not-yet-valid", "expired-at-gen-time",
            "certificate-not-named", "other-certificate", "wrong-pin"; "bad-signature"; "policy-not-pinned",
            "wrong-policy"; "future"; of revocation, "bad-crl", "revoked-at-gen-time", "revoked-for-cause".
    """
    now = now or datetime.now(timezone.utc)
    stamp = tokens.Response.read(response)
    stamp.compare(imprint, request)
    chain = stamp.chain([x509.load_der_x509_certificate(root) for root in trust.roots])
    stamp.check_signer()
    stamp.check_signature(chain)
    _accept(stamp, trust)
    if stamp.gen_time > now + SKEW:
        raise tokens.refusal("future", f"the token is of {stamp.gen_time:%F %T} UTC, after now: is this clock right?")
    lists = [revocation.load(one) for one in crls]
    # A root is trusted for as long as it is pinned; only one that signs timestamps itself can expire.
    spoken = [revocation.speaking(*pair, lists, stamp.gen_time) for pair in itertools.pairwise(chain)]
    expired = [
        (one, speak)
        for one, speak in itertools.zip_longest(chain[:-1] or chain, spoken)
        if one.not_valid_after_utc < now
    ]
    reasons = tuple(
        f"the certificate of {one.subject.rfc4514_string()} expired on {one.not_valid_after_utc:%F}, and no revocation "
        "list is there that was issued between the timestamp and then"
        for one, speak in expired
        if not speak
    )
    return Token(
        gen_time=stamp.gen_time,
        accuracy=stamp.accuracy,
        serial=stamp.serial,
        policy=stamp.policy,
        authority=stamp.authority,
        certificates=tuple(one.public_bytes(Encoding.DER) for one in chain),
        salt=stamp.salt,
        lab=any(LAB in one.subject.rfc4514_string() for one in chain),
        expired=bool(expired),
        status="inconclusive" if reasons else "valid",
        reasons=reasons,
        unrevoked_at=min((max(one.last_update_utc for one in lists) for lists in spoken), default=None)
        if all(spoken)
        else None,
        unlisted=tuple(
            revocation.Unlisted.of(one)
            for one, speak in zip(chain, spoken, strict=False)
            if not revocation.is_current(one, speak, checked or now)
        ),
    )


def salt_of(response: bytes) -> bytes:
    """SHA-256(TSTInfo DER || signature value), 32 bytes: unpredictable before the authority signed.

    The whole token would not do: anybody can add certificates to it. An ECDSA signature (r, s) verifies as (r, n - s)
    too, so the smaller s counts. The TSTInfo alone would not do either: the requester chooses the nonce in it.

    Raises:
        TimestampError: the form is wrong (see `verify_token`); nothing else is checked.
    """
    return tokens.Response.read(response).salt


def imprint_of(response: bytes) -> bytes:
    """The SHA-256 in a response.

    Raises:
        TimestampError: the form is wrong (see `verify_token`); nothing else is checked.
    """
    return tokens.Response.read(response).imprint[1]


def _accept(stamp: tokens.Response, trust: Trust) -> None:
    """Apply the owner's decisions."""
    if not trust.policies:
        text = f"no policy is pinned for {trust.url}: read what {stamp.policy}, this token's, promises, and pin it"
        raise tokens.refusal("policy-not-pinned", text)
    if stamp.policy not in trust.policies:
        text = f"the token has policy {stamp.policy}, not {' or '.join(trust.policies)}: pin it, if you accept it"
        raise tokens.refusal("wrong-policy", text)
    key = stamp.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    own = {hashlib.sha256(encoded).hexdigest() for encoded in (key, stamp.leaf.public_bytes(Encoding.DER))}
    if trust.pins and not own & set(trust.pins):
        text = f"the certificate of {stamp.authority} is not pinned: pin it, if it was renewed"
        raise tokens.refusal("wrong-pin", text)


def _certificates(data: bytes) -> list[x509.Certificate]:
    if data.lstrip().startswith(b"-----BEGIN"):
        return x509.load_pem_x509_certificates(data)
    return [x509.load_der_x509_certificate(data)]
