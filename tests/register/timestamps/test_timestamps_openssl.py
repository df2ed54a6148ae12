import hashlib
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from issued import IMPRINT, REQUEST, URL

from wmplug.register.timestamps import Trust, verify_token


def _openssl(*words):
    done = subprocess.run(["openssl", "ts", *map(str, words)], capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_openssl_verifies_our_token(lab, rsa, tmp_path, kind):
    authority = lab.authority if kind == "ec" else rsa
    (tmp_path / "a.tsq").write_bytes(REQUEST)
    (tmp_path / "a.tsr").write_bytes(authority.issue(REQUEST))
    for name in ("root", "intermediate"):
        (tmp_path / name).write_bytes(getattr(authority, name).certificate.public_bytes(Encoding.PEM))
    chain = "-CAfile", tmp_path / "root", "-untrusted", tmp_path / "intermediate"
    code, said = _openssl("-verify", "-in", tmp_path / "a.tsr", "-queryfile", tmp_path / "a.tsq", *chain)
    assert code == 0, said
    assert "Verification: OK" in said
    digest = hashlib.sha256(b"something else").hexdigest()
    code, said = _openssl("-verify", "-in", tmp_path / "a.tsr", "-digest", digest, *chain)
    assert code == 1
    assert "message imprint mismatch" in said


@pytest.mark.parametrize("digest", ["sha1", "sha256"])
def test_we_verify_a_token_of_openssl(lab, rsa, tmp_path, digest, refused):
    """Also where it names its certificate by SHA-1 (RFC 2634)."""
    for name in ("tsa", "intermediate"):
        getattr(rsa, name).save(tmp_path, name)
    # Without `certs`: with it, openssl writes an unsorted set that strict parsers refuse.
    (tmp_path / "cnf").write_text(f"""[ts]
dir = {tmp_path}
serial = $dir/serial
crypto_device = builtin
signer_cert = $dir/tsa.crt
signer_key = $dir/tsa.key
signer_digest = sha256
default_policy = 1.3.6.1.4.1.32473.7
digests = sha256
accuracy = secs:2, millisecs:500
ess_cert_id_alg = {digest}
""")
    (tmp_path / "serial").write_text("01")
    (tmp_path / "a.tsq").write_bytes(REQUEST)
    asked = "-queryfile", tmp_path / "a.tsq", "-out", tmp_path / "a.tsr"
    code, said = _openssl("-reply", "-config", tmp_path / "cnf", "-section", "ts", *asked)
    assert code == 0, said
    response = (tmp_path / "a.tsr").read_bytes()
    trust = Trust(URL, (rsa.root.der, rsa.intermediate.der), policies=("1.3.6.1.4.1.32473.7",))
    token = verify_token(response, imprint=IMPRINT, request=REQUEST, trust=trust)
    assert token.accuracy == 2.5
    assert token.serial == 2
    assert abs(token.gen_time - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert refused(response) == "wrong-root"
