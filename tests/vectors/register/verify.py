"""Checks registers, and shares no code with wmplug: `python verify.py FOLDER...`, one JSON line for each.

Python's standard library, cryptography, and the openssl command for timestamps. README.md describes the format.
"""

import base64
import contextlib
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

STATEMENT, PREDICATE = "https://in-toto.io/Statement/v1", "urn:wmplug:register:v1"
FIELDS = {"register": str, "seq": int, "prev": str, "type": str, "event_id": str, "claimed_time": str, "body": dict}
ANCHOR = {"head": int, "hash": str, "file": str, "token": str, "tsa": str, "crls": list, "salt": str}
RECORDED, OWNED = (
    re.findall("[a-z.]+", names)
    for names in (
        """dataset.committed architecture.committed parameters.committed system.committed training.started recovered
        training.checkpoint training.finished watermark.inserted suspect.verified""",
        """register.opened owner.identity key.rotated key.revoked anchor retimestamp artwork.committed model.released
        secret.committed triggers.committed disclosure trigger.spent model.derived suspect.acquired""",
    )
)
ORDERS = {
    "secp256r1": 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551,
    "secp384r1": int("F" * 48 + "C7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973", 16),
    "secp521r1": int("1" + "F" * 65 + "A51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409", 16),
}
HARMLESS = ("unspecified", "affiliationChanged", "superseded", "cessationOfOperation")
HEX, TIME = re.compile("[0-9a-f]{64}"), re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")
SLACK = timedelta(minutes=5)


class Bad(Exception):
    """What is refused, by its code."""


class BadToken(Bad):
    """What openssl refuses, or no timestamp at all."""


def sha(data):
    return hashlib.sha256(data).hexdigest()


def time_of(text):
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


def number(text):
    return int(text) if abs(float(text)) < 2**53 else float(text)


def jcs(value):
    """Canonical JSON (RFC 8785)."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode("utf-16-be"))
        return "{" + ",".join(f"{jcs(name)}:{jcs(value[name])}" for name in names) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(jcs, value)) + "]"
    if not isinstance(value, float):
        return json.dumps(value, ensure_ascii=False)
    if value == 0:
        return "0"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    d, point = "".join(map(str, digits)), len(digits) + exponent
    if 0 < point <= 21:
        text = d[:point].ljust(point, "0") + (f".{d[point:]}" if d[point:] else "")
    elif -6 < point <= 0:
        text = "0." + "0" * -point + d
    else:
        text = d[0] + (f".{d[1:]}" if d[1:] else "") + f"e{point - 1:+d}"
    return "-" * sign + text


def signed_by(public, signature, kind, payload):
    """Ed25519 over DSSE's pre-authentication encoding."""
    try:
        message = b"DSSEv1 %d %b %d %b" % (len(kind), kind.encode(), len(payload), payload)
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
        return True
    except InvalidSignature:
        return False


def read(line):
    """An entry, as its predicate with a few things added."""
    try:
        envelope = json.loads(line)
        (sig,) = envelope["signatures"]
        payload, signature = (base64.b64decode(x, validate=True) for x in (envelope["payload"], sig["sig"]))
        again = {"payload": base64.b64encode(payload).decode(), "payloadType": "application/vnd.in-toto+json"}
        again["signatures"] = [{"keyid": sig["keyid"], "sig": base64.b64encode(signature).decode()}]
        same = json.dumps(again, separators=(",", ":")).encode() + b"\n" == line
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Bad("not-an-envelope") from None
    if not same or len(signature) != 64:
        raise Bad("not-canonical")
    try:
        statement = json.loads(payload, parse_int=number, parse_constant=int)
        canonical = jcs(statement).encode() == payload
        e, about = statement["predicate"], statement["subject"]
        hashes = [e["prev"], e["register"], sig["keyid"], *(one["digest"]["sha256"] for one in about)]
        _ = [one["name"] for one in about]
        versions = statement["_type"], statement["predicateType"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Bad("not-a-statement") from None
    if not canonical:
        raise Bad("not-canonical")
    if versions != (STATEMENT, PREDICATE):
        raise Bad("unknown-version")
    if {name: type(value) for name, value in e.items()} != FIELDS:
        raise Bad("not-a-statement")
    if e["type"] not in RECORDED + OWNED:
        raise Bad("unknown-type")
    if not all(isinstance(x, str) and HEX.fullmatch(x) for x in hashes) or not TIME.fullmatch(e["claimed_time"]):
        raise Bad("not-a-statement")
    return {
        **e,
        "keyid": sig["keyid"],
        "sig": signature,
        "payload": payload,
        "hash": sha(b"wmplug/entry/v1\0" + payload),
    }


class Check:
    """One register."""

    def __init__(self, folder, now):
        self.folder, self.now, self.entries, self.keys, self.revoked = folder, now, [], {}, set()
        self.secrets, self.triggers, self.started = {}, {}, {}
        self.refused, self.unsure, self.stamps = [], [], []

    def run(self):
        self.id = json.loads((self.folder / "owner.pub").read_bytes())["commitment"]
        *lines, _torn = (self.folder / "log.jsonl").read_bytes().split(b"\n")
        try:
            for line in lines:
                self.take(read(line + b"\n"))
            self.orphans()
        except Bad as bad:
            self.refused.append((str(bad), len(self.entries) if str(bad) != "tail-deleted" else None))
        if not lines:
            self.refused.append(("empty", None))
        if (self.folder / "receipt.json").exists():
            self.receipt(json.loads((self.folder / "receipt.json").read_bytes()))
        self.tokens()
        self.order()

    def take(self, e):
        """The rules that an entry keeps by itself."""
        last = self.entries[-1] if self.entries else {"seq": -1, "hash": "0" * 64}
        body, kind, key = e["body"], e["type"], e["keyid"]
        for code, wrong in (
            ("out-of-order", e["seq"] != last["seq"] + 1),
            ("broken-chain", e["prev"] != last["hash"]),
            ("other-register", e["register"] != self.id),
            ("duplicate-event", any(e["event_id"] == one["event_id"] for one in self.entries)),
            ("not-opened", (e["seq"] == 0) != (kind == "register.opened")),
        ):
            if wrong:
                raise Bad(code)
        try:
            if e["seq"] == 0:
                self.introduce(body["public"])
                opening = bytes.fromhex(body["opening"])
                if len(opening) != 32:
                    raise Bad("bad-body")
                bound = b"wmplug/owner/1\0" + opening + bytes.fromhex(body["public"])
                if sha(bound) != self.id:
                    raise Bad("other-owner")
            if key not in self.keys:
                raise Bad("unknown-key")
            public, mark = self.keys[key]
            if not signed_by(public, e["sig"], "application/vnd.in-toto+json", e["payload"]):
                raise Bad("bad-signature")
            if key in self.revoked:
                raise Bad("revoked-key")
            if mark is not None and (kind not in RECORDED or body.get("watermark") not in (None, mark)):
                raise Bad("not-allowed")
            self.learn(e, body, kind)
            time_of(e["claimed_time"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Bad("bad-body") from None
        self.entries.append(e)

    def introduce(self, public, mark=None):
        raw = bytes.fromhex(public)
        if len(raw) != 32:
            raise ValueError
        if mark is None or self.keys.get(sha(raw), (raw, mark))[1] is not None:
            self.keys[sha(raw)] = raw, mark

    def learn(self, e, body, kind):
        if kind == "key.rotated":
            public, proof = bytes.fromhex(body["public"]), base64.b64decode(body["proof"], validate=True)
            claim = {"register": self.id, **{name: body[name] for name in ("former", "public", "commitment")}}
            proven = signed_by(public, proof, "application/vnd.wmplug.rotation+json", jcs(claim).encode())
            if body["former"] != e["keyid"] or not proven or sha(public) in self.keys:
                raise Bad("bad-rotation")
            self.introduce(body["public"])
            self.revoked.add(body["former"])
        elif kind == "key.revoked":
            if body["keyid"] not in self.keys:
                raise Bad("unknown-key")
            self.revoked.add(body["keyid"])
        elif kind == "secret.committed":
            self.secrets.setdefault(body["watermark"], e["seq"])
        elif kind == "triggers.committed":
            mark, evidence = body["watermark"], body["evidence"]
            if not isinstance(mark, str) or not isinstance(evidence["salt"], str | None):
                raise TypeError
            self.introduce(body["recorder"], mark)
            if self.secrets.get(mark, -1) != evidence["secret_committed"]:
                self.refused.append(("no-secret", e["seq"]))
            self.triggers[mark] = e["seq"], evidence["salt"]
        elif kind == "training.started":
            self.started.setdefault(body["watermark"], e["seq"])
        elif kind == "anchor":
            names = [body["file"], *body["crls"]]
            if {name: type(body[name]) for name in ANCHOR} != ANCHOR or body["head"] < 0:
                raise TypeError
            if not all(re.fullmatch(r"\w[\w.-]*", name, re.ASCII) for name in names):
                raise ValueError

    def receipt(self, r):
        claim = jcs({name: r[name] for name in ("register", "seq", "hash")}).encode()
        public, mark = self.keys.get(r["keyid"], (bytes(32), ""))
        if r["register"] != self.id:
            self.refused.append(("other-register", None))
        elif mark is not None or not signed_by(
            public, base64.b64decode(r["sig"]), "application/vnd.wmplug.receipt+json", claim
        ):
            self.refused.append(("bad-receipt", None))
        elif r["seq"] >= len(self.entries):
            self.refused.append(("tail-deleted", None))
        elif self.entries[r["seq"]]["hash"] != r["hash"]:
            self.refused.append(("rewritten", None))

    def orphans(self):
        """Tokens that no entry names: what they stamp must be in the log."""
        named = {e["body"]["file"] for e in self.entries if e["type"] == "anchor"}
        for file in (self.folder / "anchors").glob("*.tsr"):
            with contextlib.suppress(BadToken):
                if file.name not in named and Token(file).imprint.hex() not in [e["hash"] for e in self.entries]:
                    raise Bad("tail-deleted")

    def tokens(self):
        """Anchors, the last first: a later token renews what was named by an entry that it covers."""
        policy = self.folder / "policy.json"
        trusted = {t["url"]: t for t in json.loads(policy.read_bytes())["tsa"]} if policy.exists() else {}
        latest, good = {}, []
        for e in reversed([e for e in self.entries if e["type"] == "anchor"]):
            renewed = min([self.now, *(at for _, head, at, _ in good if head >= e["seq"])])
            try:
                token, unsure = self.token(e, trusted, latest, renewed)
                if unsure:
                    self.unsure.append(f"token-inconclusive@{e['seq']}")
                else:
                    good.append((e["seq"], e["body"]["head"], token.time, token.lab))
            except Bad as bad:
                self.refused.append((str(bad), e["seq"]))
        for stamp in reversed(good):
            if self.stamps and stamp[2] < self.stamps[-1][2] - SLACK:
                self.refused.append(("time-runs-back", stamp[0]))
            else:
                self.stamps.append(stamp)

    def token(self, e, trusted, latest, renewed):
        body, folder = e["body"], self.folder / "anchors"
        if body["head"] >= e["seq"] or self.entries[body["head"]]["hash"] != body["hash"]:
            raise Bad("wrong-head")
        file = folder / body["file"]
        if not all((folder / name).is_file() for name in (body["file"], *body["crls"])):
            raise Bad("token-missing")
        if sha(file.read_bytes()) != body["token"]:
            raise Bad("token-replaced")
        if body["tsa"] not in trusted:
            raise Bad("authority-not-trusted")
        trust, token = trusted[body["tsa"]], Token(file)
        if token.imprint.hex() != body["hash"]:
            raise Bad("wrong-imprint")
        if file.with_suffix(".tsq").exists():
            token.answers(file.with_suffix(".tsq").read_bytes())
        token.verify(trust["roots"])
        if token.policy not in trust["policies"]:
            raise Bad("wrong-policy" if trust["policies"] else "policy-not-pinned")
        spki = token.leaf.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if trust["pins"] and not {sha(spki), sha(token.leaf.public_bytes(Encoding.DER))} & set(trust["pins"]):
            raise Bad("wrong-pin")
        now = renewed if token.time <= renewed + SLACK else self.now
        if token.time > now + SLACK:
            raise Bad("future")
        own = [(folder / name).read_bytes() for name in body["crls"]]
        latest.setdefault(body["tsa"], own)
        unsure = token.revoked([*own, *(one for lists in latest.values() for one in lists)], trust["roots"], now)
        told = {"authority": token.leaf.subject.rfc4514_string(), "serial": str(token.serial), "policy": token.policy}
        told |= {"gen_time": f"{token.time:%Y-%m-%dT%H:%M:%SZ}", "lab": token.lab}
        if body["salt"] != token.salt:
            raise Bad("wrong-salt")
        if any(body.get(name) != value for name, value in told.items()):
            raise Bad("wrong-anchor")
        return token, unsure

    def order(self):
        """Secret, salt, triggers, token, training."""
        anchors = [e for e in self.entries if e["type"] == "anchor"]
        for mark, (seq, salt) in self.triggers.items():
            first = next((e for e in anchors if e["body"]["head"] >= self.secrets.get(mark, seq)), None)
            if salt is None:
                self.unsure.append(f"no-salt@{seq}")
            elif first is None or first["seq"] > seq:
                self.refused.append(("salt-without-token", seq))
            elif first["body"]["salt"] != salt:
                self.refused.append(("wrong-salt", seq))
            elif first["seq"] not in [stamp[0] for stamp in self.stamps]:
                self.unsure.append(f"salt-unproven@{seq}")
            covering = [stamp[0] for stamp in self.stamps if stamp[1] >= seq]
            started = self.started.get(mark)
            if started is not None and started < seq:
                self.refused.append(("triggers-after-training", seq))
            elif started is not None and covering and covering[0] > started:
                self.refused.append(("anchored-after-training", seq))
            elif started is not None and not covering:
                self.unsure.append(f"not-anchored@{seq}")


def der(data, at=0, end=None):
    """The elements of a DER encoding, as (tag, content, all of it)."""
    end, found = len(data) if end is None else end, []
    while at < end:
        start, tag, length, at = at, data[at], data[at + 1], at + 2
        if length & 0x80:
            size = length & 0x7F
            length, at = int.from_bytes(data[at : at + size], "big"), at + size
        if at + length > end:
            raise IndexError
        found.append((tag, data[at : at + length], data[start : at + length]))
        at += length
    return found


class Token:
    """A timestamp response (RFC 3161)."""

    def __init__(self, file):
        self.file = file
        try:
            ((_, answer, _),) = der(file.read_bytes())
            (_, status, _), (_, content, _) = der(answer)
            self.take(content)
            granted = der(status)[0][1] == b"\0"
        except (IndexError, ValueError, TypeError, KeyError):
            raise BadToken("bad-token") from None
        if not granted:
            raise BadToken("bad-token")

    def take(self, content):
        signed = der(der(der(content)[1][1])[0][1])
        (info,) = der(der(signed[2][1])[1][1])
        bag = [one[2] for one in der(signed[3][1])]
        (signer,) = der(signed[-1][1])
        _, (_, sid, _), *_, (_, signature, _) = der(signer[1])
        issuer, serial = der(sid)
        self.bag = [x509.load_der_x509_certificate(one) for one in bag]
        (self.leaf,) = {
            c
            for c in self.bag
            if c.issuer.public_bytes() == issuer[2] and c.serial_number == int.from_bytes(serial[1], "big")
        }
        _, policy, imprint, number, time, *rest = der(der(info[1])[0][1])
        first, *others = policy[1]
        arcs, value = [first // 40, first % 40], 0
        for byte in others:
            value = value << 7 | byte & 0x7F
            arcs, value = (arcs, value) if byte & 0x80 else ([*arcs, value], 0)
        self.policy, self.serial = ".".join(map(str, arcs)), int.from_bytes(number[1], "big", signed=True)
        self.imprint = der(imprint[1])[1][1]
        self.time = datetime.strptime(time[1][:14].decode(), "%Y%m%d%H%M%S").replace(tzinfo=timezone.utc)
        self.nonce = next((part[1] for part in rest if part[0] == 2), None)
        key = self.leaf.public_key()
        if isinstance(key, ec.EllipticCurvePublicKey):
            r, s = decode_dss_signature(signature)
            signature = encode_dss_signature(r, min(s, ORDERS[key.curve.name] - s))
        self.salt = sha(info[1] + signature)
        names = [c.subject.rfc4514_string() + c.issuer.rfc4514_string() for c in self.bag]
        self.lab = any("LAB ONLY - NOT ATTESTED" in name for name in names)

    def answers(self, request):
        _, imprint, *rest = der(der(request)[0][1])
        nonce = next((part[1] for part in rest if part[0] == 2), None)
        if der(imprint[1])[1][1] != self.imprint:
            raise Bad("wrong-request")
        if nonce != self.nonce:
            raise Bad("wrong-nonce" if self.nonce else "nonce-missing")

    def verify(self, roots):
        """By openssl: signature, chain and purpose at the time of the token, and the certificate that it names."""
        with tempfile.TemporaryDirectory() as folder:
            trusted, others = Path(folder, "roots"), Path(folder, "others")
            trusted.write_text("".join(roots))
            others.write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in self.bag))
            asked = ["-digest", self.imprint.hex(), "-attime", str(int(self.time.timestamp()))]
            chain = ["-CAfile", trusted, "-untrusted", others]
            done = subprocess.run(["openssl", "ts", "-verify", "-in", self.file, *asked, *chain], capture_output=True)
        if done.returncode:
            raise BadToken("bad-token")

    def revoked(self, lists, roots, now):
        """Whether a certificate has expired since, and no list of its time speaks for it."""
        pool, unsure, subject = [*self.bag, *x509.load_pem_x509_certificates("".join(roots).encode())], False, self.leaf
        try:
            lists = [x509.load_der_x509_crl(one) for one in lists]
        except ValueError:
            raise Bad("bad-crl") from None
        while subject.issuer != subject.subject:
            issuer = next(c for c in pool if issued(c, subject))
            own = [one for one in lists if one.issuer == issuer.subject]
            if not all(one.is_signature_valid(issuer.public_key()) for one in own):
                raise Bad("bad-crl")
            for one in own:
                entry = one.get_revoked_certificate_by_serial_number(subject.serial_number)
                if entry is not None:
                    reasons = [x.value.reason.value for x in entry.extensions if isinstance(x.value, x509.CRLReason)]
                    if not set(reasons) & set(HARMLESS):
                        raise Bad("revoked-for-cause")
                    if entry.revocation_date_utc <= self.time:
                        raise Bad("revoked-at-gen-time")
            end = subject.not_valid_after_utc
            unsure |= end < now and not any(self.time <= one.last_update_utc <= end for one in own)
            subject = issuer
        return unsure


def issued(issuer, subject):
    try:
        subject.verify_directly_issued_by(issuer)
        return True
    except (ValueError, TypeError, InvalidSignature):
        return False


def main():
    for folder in map(Path, sys.argv[1:]):
        expected = folder / "expect.json"
        now = time_of(json.loads(expected.read_bytes())["now"]) if expected.exists() else datetime.now(timezone.utc)
        check = Check(folder, now)
        check.run()
        code, first = check.refused[0] if check.refused else (None, None)
        attested = max((head + 1 for _, head, _, lab in check.stamps if not lab), default=0)
        found = {"ok": code is None, "first_bad": first, "class": code, "entries": len(check.entries)}
        print(json.dumps({"case": folder.name, **found, "attested": attested, "inconclusive": check.unsure}))


if __name__ == "__main__":
    main()
