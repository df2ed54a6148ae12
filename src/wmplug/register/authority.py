"""A timestamp authority for a laboratory (RFC 3161): real tokens, which prove nothing to anybody else.

Its keys lie open in a folder and its clock is the machine's own, so whoever holds the folder can date anything as he
likes. The subject of each of its certificates says so, and with it every token.
"""

import contextlib
import hashlib
import ipaddress
import secrets
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Literal

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wmplug.errors import InputError, PluginError
from wmplug.keys.files import write_new

try:
    from asn1crypto import cms, parser, tsp
    from asn1crypto import x509 as asn1_x509

    from wmplug.register.timestamps import LAB, REPLY, REQUEST, Trust
except ModuleNotFoundError as error:
    raise PluginError(f"timestamps need {error.name}: pip install 'wmplug[evidence]'") from error

Kind = Literal["ec", "rsa"]
Status = Literal["granted", "granted_with_mods", "rejection", "waiting"]

# Under the enterprise number that RFC 5612 keeps for examples: no real authority can ever have this policy.
POLICY = "1.3.6.1.4.1.32473.3161"
_MOST = 1 << 16


@dataclass(frozen=True)
class Party:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

    @property
    def der(self) -> bytes:
        """The certificate in DER."""
        return self.certificate.public_bytes(Encoding.DER)

    def sign(self, data: bytes) -> bytes:
        """Signature over the SHA-256 of `data`: ECDSA (DER of r and s) or RSA PKCS #1 v1.5."""
        if isinstance(self.key, rsa.RSAPrivateKey):
            return self.key.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.key.sign(data, ec.ECDSA(hashes.SHA256()))

    def save(self, folder: Path, name: str) -> None:
        """Write NAME.key, unsealed, and NAME.crt."""
        key = self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_new(folder / f"{name}.key", key, 0o600)
        write_new(folder / f"{name}.crt", self.certificate.public_bytes(Encoding.PEM), 0o644)

    @classmethod
    def load(cls, folder: Path, name: str) -> "Party":
        """Read what `save` wrote.

        Raises:
            InputError: it is not there, or damaged.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / f"{name}.crt").read_bytes())
            key = load_pem_private_key((folder / f"{name}.key").read_bytes(), None)
        except FileNotFoundError:
            raise InputError(f"{folder} holds no authority: make one with `wmplug tsa make --dir {folder}`") from None
        except (ValueError, TypeError):
            raise InputError(f"{folder / name} is damaged: make an authority in another folder") from None
        if not isinstance(key, (ec.EllipticCurvePrivateKey, rsa.RSAPrivateKey)):
            raise InputError(f"{folder / name}.key is of another kind than EC and RSA: make an authority anew")
        return cls(certificate, key)


@dataclass(frozen=True)
class LabAuthority:
    """The three parties of an authority, each certified by the next."""

    tsa: Party
    intermediate: Party
    root: Party

    @classmethod
    def create(
        cls,
        folder: str | Path,
        *,
        url: str,
        kind: Kind = "ec",
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> "LabAuthority":
        """Make an authority in `folder`.

        Args:
            folder: made if it is not there; the keys lie open in it.
            url: where `serve` will answer; the certificates name it as the place of the revocation lists.
            kind: "ec" (P-256) or "rsa" (2048 bits).
            since: start of validity, aware; default: a day ago.
            until: end of the timestamping certificate, ten years before the others'; default: ten years after `since`.

        Raises:
            InputError: there is one already.
        """
        folder = Path(folder)
        if (folder / "tsa.crt").exists():
            raise InputError(f"{folder} holds an authority already: use it, or choose another folder")
        since = since or _now() - timedelta(days=1)
        until = until or since + timedelta(days=3650)
        later = until + timedelta(days=3650)
        root = certified("root", None, kind=kind, since=since, until=later)
        intermediate = certified("intermediate", root, crl=f"{url}/root.crl", kind=kind, since=since, until=later)
        tsa = certified("tsa", intermediate, crl=f"{url}/intermediate.crl", kind=kind, since=since, until=until)
        folder.mkdir(parents=True, exist_ok=True)
        for party, name in ((root, "root"), (intermediate, "intermediate"), (tsa, "tsa")):
            party.save(folder, name)
        return cls(tsa, intermediate, root)

    @classmethod
    def open(cls, folder: str | Path) -> "LabAuthority":
        """Read what `create` made.

        Raises:
            InputError: there is none, or it is damaged.
        """
        return cls(*(Party.load(Path(folder), name) for name in ("tsa", "intermediate", "root")))

    def trust(self, url: str) -> Trust:
        """What a register pins to accept this authority's tokens, answered at `url`."""
        return Trust(url, (self.root.der,), policies=(POLICY,))

    def issue(self, request: bytes, *, gen_time: datetime | None = None, status: Status = "granted") -> bytes:
        """Answer a request (RFC 3161, section 2.4).

        Args:
            request: DER of a TimeStampReq; a bad one is answered with a rejection, as over the wire.
            gen_time: aware; default: now, in whole seconds.
            status: what to answer; only with granted and granted_with_mods comes a token.

        Returns:
            DER of a TimeStampResp.
        """
        try:
            asked = tsp.TimeStampReq.load(request, strict=True).native
            asked_hash, imprint = asked["message_imprint"].values()
        except (ValueError, TypeError, AttributeError):
            return _answer("rejection", failure="bad_data_format")
        if asked_hash["algorithm"] != "sha256" or len(imprint) != 32:
            return _answer("rejection", failure="bad_alg")
        if asked["req_policy"] not in (None, POLICY):
            return _answer("rejection", failure="unaccepted_policy")
        if not status.startswith("granted"):
            return _answer(status)
        info = {
            "version": "v1",
            "policy": POLICY,
            "message_imprint": {"hash_algorithm": {"algorithm": "sha256"}, "hashed_message": imprint},
            "serial_number": secrets.randbits(63),
            "gen_time": gen_time or _now(),
            "accuracy": {"seconds": 1},
            "tsa": asn1_x509.GeneralName("directory_name", asn1_x509.Certificate.load(self.tsa.der).subject),
        }
        if asked["nonce"] is not None:
            info["nonce"] = asked["nonce"]
        return _answer(status, self._token(tsp.TSTInfo(info), with_certificates=asked["cert_req"]))

    def _token(self, info: Any, *, with_certificates: bool) -> Any:
        """The signed form of a TSTInfo (RFC 5652, section 5, with the attribute of RFC 5816)."""
        leaf = asn1_x509.Certificate.load(self.tsa.der)
        signed_by = tsp.SigningCertificateV2({"certs": [{"cert_hash": hashlib.sha256(self.tsa.der).digest()}]})
        attributes = cms.CMSAttributes(
            [
                {"type": "content_type", "values": ["tst_info"]},
                {"type": "message_digest", "values": [hashlib.sha256(info.dump()).digest()]},
                {"type": "signing_certificate_v2", "values": [signed_by]},
            ]
        )
        rsa_key = isinstance(self.tsa.key, rsa.RSAPrivateKey)
        identifier = {"issuer": leaf.issuer, "serial_number": leaf.serial_number}
        signer = {
            "version": "v1",
            "sid": cms.SignerIdentifier("issuer_and_serial_number", cms.IssuerAndSerialNumber(identifier)),
            "digest_algorithm": {"algorithm": "sha256"},
            "signed_attrs": attributes,
            "signature_algorithm": {"algorithm": "rsassa_pkcs1v15" if rsa_key else "sha256_ecdsa"},
            "signature": self.tsa.sign(attributes.dump()),
        }
        signed = {
            "version": "v3",
            "digest_algorithms": [{"algorithm": "sha256"}],
            "encap_content_info": {"content_type": "tst_info", "content": info},
            "signer_infos": [signer],
        }
        if with_certificates:
            chain = leaf, asn1_x509.Certificate.load(self.intermediate.der)
            signed["certificates"] = [cms.CertificateChoices("certificate", certificate) for certificate in chain]
        return cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(signed)})

    def crl(
        self,
        of: Literal["tsa", "intermediate"] = "tsa",
        *,
        revoked: datetime | None = None,
        reason: x509.ReasonFlags | None = None,
        at: datetime | None = None,
    ) -> bytes:
        """The list in which a revocation of one certificate would stand, signed by its issuer (RFC 5280, section 5).

        Args:
            of: whose certificate.
            revoked: since when it is revoked; default: it is not.
            reason: why; default: the list gives none.
            at: when the list is issued; default: now.

        Returns:
            DER of a CertificateList.
        """
        subject, issuer = (self.tsa, self.intermediate) if of == "tsa" else (self.intermediate, self.root)
        at = at or _now()
        key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        listed = x509.CertificateRevocationListBuilder(issuer.certificate.subject, at, at + timedelta(days=7))
        listed = listed.add_extension(key, critical=False)
        if revoked is not None:
            entry = x509.RevokedCertificateBuilder(subject.certificate.serial_number, revoked)
            if reason is not None:
                entry = entry.add_extension(x509.CRLReason(reason), critical=False)
            listed = listed.add_revoked_certificate(entry.build())
        return listed.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.DER)


def certified(
    name: str,
    issuer: Party | None,
    *,
    since: datetime,
    until: datetime,
    kind: Kind = "ec",
    crl: str | None = None,
) -> Party:
    """Make a key and its certificate.

    Args:
        name: "tsa" for a timestamping certificate, any other for an authority over certificates.
        issuer: who certifies it; None: itself.
        since: start of validity, aware.
        until: its end.
        kind: "ec" (P-256) or "rsa" (2048 bits).
        crl: URL of the list in which its revocation would stand.
    """
    key = rsa.generate_private_key(65537, 2048) if kind == "rsa" else ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{LAB} ({name})")])
    leaf = name == "tsa"
    usage = dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement", "content_commitment"), False)
    usage |= {"digital_signature": leaf, "key_cert_sign": not leaf, "crl_sign": not leaf}
    signer = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder(issuer.certificate.subject if issuer else subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if leaf:
        builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.TIME_STAMPING]), critical=True)
    if crl:
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(crl)], None, None, None)
        builder = builder.add_extension(x509.CRLDistributionPoints([point]), critical=False)
    return Party(builder.sign(signer, hashes.SHA256()), key)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)


def _answer(status: Status, token: Any = None, *, failure: str | None = None) -> bytes:
    told: dict[str, Any] = {"status": status, "status_string": [LAB]}
    if failure is not None:
        told["fail_info"] = {failure}
    encoded = tsp.PKIStatusInfo(told).dump()
    # asn1crypto's TimeStampResp cannot be without a token, but a rejection has none.
    encoded += b"" if token is None else token.dump()
    sequence: bytes = parser.emit(0, 1, 16, encoded)
    return sequence


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, address: tuple[str, int], authority: LabAuthority) -> None:
        self.authority = authority
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    """RFC 3161, section 3.4: requests by POST; and both revocation lists by GET."""

    server: _Server
    timeout = 10

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.headers.get_content_type() != REQUEST:
            return self.send_error(415, f"send {REQUEST}")
        if not length.isdecimal() or int(length) > _MOST:
            return self.send_error(413)
        self._send(REPLY, self.server.authority.issue(self.rfile.read(int(length))))

    def do_GET(self) -> None:
        if self.path == "/intermediate.crl":
            return self._send("application/pkix-crl", self.server.authority.crl("tsa"))
        if self.path == "/root.crl":
            return self._send("application/pkix-crl", self.server.authority.crl("intermediate"))
        self.send_error(404)

    def _send(self, kind: str, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Not on stderr: callers have that for themselves."""


@contextlib.contextmanager
def serve(folder: str | Path, host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """Answer for the authority in `folder`, in a thread, until the block ends.

    Args:
        folder: what `LabAuthority.create` made.
        host: a loopback address; a lab's timestamps are for nobody else.
        port: 0 takes a free one.

    Yields:
        The URL.

    Raises:
        InputError: the host is not loopback, the port is taken, or there is no authority.
    """
    authority = LabAuthority.open(folder)
    address = "127.0.0.1" if host == "localhost" else host
    try:
        loopback = ipaddress.IPv4Address(address).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise InputError(f"a lab authority answers on loopback only, not on {host!r}: leave the host at 127.0.0.1")
    try:
        server = _Server((address, port), authority)
    except (OSError, OverflowError) as error:
        raise InputError(f"cannot listen on {address}:{port} ({error}): choose another port") from None
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield f"http://{address}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
