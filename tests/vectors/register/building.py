"""Authorities and registers that come out the same, byte for byte, each time they are made."""

import base64
import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import rfc8785
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from wmplug.keys.owner import binding
from wmplug.register import receipts, timestamps
from wmplug.register.anchors import told_by
from wmplug.register.authority import POLICY, LabAuthority, Party
from wmplug.register.statements import FIRST, Signer, encode
from wmplug.register.timestamps import Trust

URL = "http://tsa.example"
MARK, OTHER_MARK = "11" * 16, "22" * 16
OPENING = hashlib.sha256(b"Ada").hexdigest()
NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)
BEGIN = datetime(2026, 1, 10, 10, tzinfo=timezone.utc)
THEN = datetime(2020, 6, 1, 12, tzinfo=timezone.utc)  # when the old authority was good
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256


def number(name: str, bits: int = 256) -> int:
    return int.from_bytes(hashlib.shake_256(name.encode()).digest(bits // 8), "big")


OWNER, NEXT, RECORDER, STRANGER = (
    Signer(hashlib.sha256(name).digest()) for name in (b"owner", b"next", b"recorder", b"stranger")
)
REGISTER = binding(OPENING, OWNER.public.hex())


class Repeatable(Party):
    """Signs the same bytes the same way each time (RFC 6979)."""

    def sign(self, data: bytes) -> bytes:
        if isinstance(self.key, rsa.RSAPrivateKey):
            return super().sign(data)
        return self.key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def _rsa_key(name: str) -> rsa.RSAPrivateKey:
    def prime(which: str) -> int:
        start = number(f"{name}/{which}", 1024) | 3 << 1022 | 1
        candidates = (n for n in itertools.count(start, 2) if n % 65537 != 1 and all(n % s for s in range(3, 3000, 2)))
        return next(n for n in candidates if pow(2, n - 1, n) == 1)

    p, q = prime("p"), prime("q")
    d = pow(65537, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(65537, p * q)
    crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    return rsa.RSAPrivateNumbers(p, q, d, *crt, public).private_key()


def party(
    name: str,
    issuer: Party | None,
    years: tuple[int, int],
    *,
    eku: tuple[Any, ...] | None = None,
    kind: str = "ec",
    seed: str = "",
) -> Party:
    """A key that follows from name and seed, and its certificate."""
    since, until = (datetime(year, 1, 1, tzinfo=timezone.utc) for year in years)
    key = _rsa_key(name) if kind == "rsa" else ec.derive_private_key(number(name + seed) % ORDER, ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    leaf, signer = eku is not None, issuer.key if issuer else key
    usage = dict.fromkeys(("key_encipherment", "data_encipherment", "key_agreement", "content_commitment"), False)
    usage |= {"digital_signature": leaf, "key_cert_sign": not leaf, "crl_sign": not leaf}
    builder = (
        x509.CertificateBuilder(issuer.certificate.subject if issuer else subject, subject, key.public_key())
        .serial_number(number(f"{name}/serial{seed}", 64) >> 1)
        .not_valid_before(since)
        .not_valid_after(until)
        .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**usage, encipher_only=False, decipher_only=False), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    if eku:
        builder = builder.add_extension(x509.ExtendedKeyUsage(eku), critical=True)
    return Repeatable(_signed(builder, signer), key)


def _signed(builder: Any, key: Any) -> Any:
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=None if isinstance(key, rsa.RSAPrivateKey) else True)


def authority(
    name: str,
    years: tuple[int, int] = (2025, 2035),
    eku: tuple[Any, ...] = (ExtendedKeyUsageOID.TIME_STAMPING,),
    kind: str = "ec",
    seed: str = "",
) -> LabAuthority:
    """Root, intermediate and timestamping certificate; the last one's years are given."""
    above = (years[0], 2045)
    root = party(f"{name} root", None, above, kind=kind, seed=seed)
    intermediate = party(f"{name} intermediate", root, above, kind=kind, seed=seed)
    tsa = party(f"{name} timestamps", intermediate, years, eku=eku, kind=kind, seed=seed)
    return LabAuthority(tsa, intermediate, root)


GOOD, OTHER, OLD, RSA = (
    authority("Good"),
    authority("Other"),
    authority("Old", (2020, 2022)),
    authority("Large", kind="rsa"),
)
LAB, LONG = authority("LAB ONLY - NOT ATTESTED"), authority("Long", (2019, 2040))
_second = party("Good timestamps 2", GOOD.intermediate, (2025, 2035), eku=(ExtendedKeyUsageOID.TIME_STAMPING,))
GOOD_RENEWED = replace(GOOD, tsa=_second)


def crl(
    of: LabAuthority, at: datetime, *, revoked: datetime | None = None, reason: Any = None, by: Party | None = None
) -> bytes:
    """The intermediate's list, with its timestamping certificate on it or not."""
    issuer = of.intermediate
    key = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
    listed = x509.CertificateRevocationListBuilder(issuer.certificate.subject, at, at + timedelta(days=7))
    listed = listed.add_extension(key, critical=False)
    if revoked is not None:
        entry = x509.RevokedCertificateBuilder(of.tsa.certificate.serial_number, revoked)
        entry = entry.add_extension(x509.CRLReason(reason), critical=False) if reason else entry
        listed = listed.add_revoked_certificate(entry.build())
    return _signed(listed, (by or issuer).key).public_bytes(Encoding.DER)


class Log:
    """A register while it is written, and spoilt."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.lines, self.clock, self.signer = folder, [], BEGIN, OWNER
        self.authorities: dict[str, Trust] = {}
        self.called = "Ada"
        (folder / "anchors").mkdir(parents=True)

    def add(
        self, kind: str, body: Any = None, *, by: Signer | None = None, at: datetime | None = None, **other: Any
    ) -> int:
        """Append an entry; what is given in `other` stands in it in place of the usual."""
        self.clock += timedelta(minutes=1)
        subject, seq = other.pop("subject", ()), len(self.lines)
        predicate = {
            "register": REGISTER,
            "seq": seq,
            "prev": self.hash(seq - 1) if seq else FIRST,
            "type": kind,
            "event_id": f"event {seq}",
            "claimed_time": f"{at or self.clock:%Y-%m-%dT%H:%M:%SZ}",
            "body": {} if body is None else body,
        }
        self.lines.append(encode({**predicate, **other}, subject, by or self.signer))
        return seq

    def payload(self, seq: int) -> bytes:
        """Of an entry, as stored."""
        return base64.b64decode(json.loads(self.lines[seq])["payload"])

    def hash(self, seq: int) -> str:
        """The entry hash."""
        return hashlib.sha256(b"wmplug/entry/v1\0" + self.payload(seq)).hexdigest()

    def edit(self, seq: int, *path: Any, to: Any) -> None:
        """Change one field of a payload, and leave the signature as it was."""
        statement = json.loads(self.payload(seq))
        inner = statement
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = to
        self.put(seq, rfc8785.dumps(statement))

    def put(self, seq: int, payload: bytes, by: Signer | None = None) -> None:
        """Another payload, under the old signature or a new one."""
        envelope = json.loads(self.lines[seq])
        envelope["payload"] = base64.b64encode(payload).decode()
        if by is not None:
            sig = base64.b64encode(by.sign(payload)).decode()
            envelope["signatures"] = [{"keyid": by.keyid, "sig": sig}]
        self.envelope(seq, envelope)

    def envelope(self, seq: int, envelope: Any) -> None:
        """Another envelope."""
        self.lines[seq] = json.dumps(envelope, separators=(",", ":")).encode() + b"\n"

    def trust(self, of: LabAuthority, url: str = URL, **changes: Any) -> None:
        """Name an authority in the policy."""
        self.authorities[url] = Trust(**{"url": url, "roots": (of.root.der,), "policies": (POLICY,), **changes})

    def stamp(
        self,
        of: LabAuthority = GOOD,
        *,
        at: datetime | None = None,
        imprint: bytes | None = None,
        head: int | None = None,
        spoil: Callable[[bytes], bytes] | None = None,
        request: bytes | None = None,
        url: str = URL,
        lists: tuple[bytes, ...] = (),
        keep: bytes | None = None,
        **body: Any,
    ) -> int:
        """A token over the head (or another imprint), and the entry that names it."""
        if url not in self.authorities:
            self.trust(of, url)
        self.clock = max(self.clock, at or self.clock) + timedelta(minutes=1)
        head = len(self.lines) - 1 if head is None else head
        imprint = imprint or bytes.fromhex(self.hash(head))
        request = request or timestamps.make_request(imprint)
        good = of.issue(request, gen_time=at or self.clock)
        own = Trust(url, (of.root.der,), policies=(POLICY,))
        told = told_by(timestamps.verify_token(good, imprint=imprint, request=None, trust=own, now=NOW))
        return self.name(spoil(good) if spoil else good, head, url, lists, keep, {**told, **body})

    def name(
        self, response: bytes, head: int, url: str, lists: tuple[bytes, ...], keep: bytes | None, body: dict[str, Any]
    ) -> int:
        """Keep a response, and append the entry that names it."""
        name = f"{len(self.lines):06d}"
        crls = [f"{name}.{i}.crl" for i in range(len(lists))]
        files = {f"{name}.tsr": response, **dict(zip(crls, lists, strict=True))}
        if keep is not None:
            files[f"{name}.tsq"] = keep
        for file, data in files.items():
            (self.folder / "anchors" / file).write_bytes(data)
        usual = {"head": head, "hash": self.hash(head), "file": f"{name}.tsr", "crls": crls, "tsa": url}
        return self.add("anchor", {**usual, "token": hashlib.sha256(response).hexdigest(), **body})

    def salt(self, seq: int) -> str:
        """That of the token which entry `seq` names."""
        return json.loads(self.payload(seq))["predicate"]["body"]["salt"]

    def receipt(self, by: Signer = OWNER, seq: int | None = None, register: str = REGISTER) -> None:
        """One for the head as it is now."""
        seq = len(self.lines) - 1 if seq is None else seq
        about = rfc8785.dumps({"register": register, "seq": seq, "hash": self.hash(seq)})
        given = receipts.Receipt(register, seq, self.hash(seq), by.keyid, by.sign(about, receipts.PAYLOAD_TYPE))
        (self.folder / "receipt.json").write_text(json.dumps(given.to_json(), indent=1) + "\n")

    def save(self) -> None:
        """Write what `expect.json` is about."""
        public = {
            "kind": "owner",
            "name": self.called,
            "commitment": REGISTER,
            "claimed_time": "2026-01-10T10:00:00+00:00",
        }
        (self.folder / "owner.pub").write_text(json.dumps(public, indent=1) + "\n")
        (self.folder / "log.jsonl").write_bytes(b"".join(self.lines))
        if self.authorities:
            policy = {"tsa": [one.to_json() for one in self.authorities.values()]}
            (self.folder / "policy.json").write_text(json.dumps(policy, indent=1) + "\n")
        if not any((self.folder / "anchors").iterdir()):
            (self.folder / "anchors").rmdir()
