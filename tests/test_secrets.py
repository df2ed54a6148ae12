"""Nothing that is printed, logged, raised or published holds a key or a passphrase."""

import base64
import json
import logging
import traceback

import numpy as np
import pytest

import wmplug
from wmplug import Monitor, Owner, WmplugError, create, load, read_public, verify
from wmplug.keys.sealing import Seal

PASSPHRASE = "correct horse battery staple"
WRONG = "hunter2-hunter2"


def forms(secret):
    """A secret as it may be spelt."""
    raw = secret if isinstance(secret, bytes) else secret.encode()
    spelt = [raw, raw.hex().encode(), base64.b64encode(raw).rstrip(b"="), base64.urlsafe_b64encode(raw).rstrip(b"=")]
    return [*spelt, repr(raw)[2:-1].encode(), str(list(raw))[1:-1].encode()]


def found(mark, owner, text):
    """Which secrets a text holds."""
    data = text if isinstance(text, bytes) else text.encode(errors="surrogatepass")
    secrets = {p: mark.subkeys.key(p) for p in ("input", "label", "schedule", "disclosure")}
    secrets |= {"owner": owner._roots[0], "seal": mark._seal._key, "passphrase": PASSPHRASE, "wrong passphrase": WRONG}
    return [name for name, secret in secrets.items() if any(form in data for form in forms(secret))]


@pytest.fixture(scope="module")
def mark(owner, digits):
    return create(owner, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10, triggers=20)


def test_the_search_finds(mark, owner):
    for secret in (mark.subkeys.key("label"), owner._roots[0], PASSPHRASE):
        for form in forms(secret):
            assert found(mark, owner, b"some " + form + b" text")
    assert not found(mark, owner, "some text")


def test_reprs(mark, owner):
    things = [owner, mark, mark.triggers, mark.triggers.plan, mark.subkeys, mark._seal, mark.subkeys.stream("label")]
    things += [mark.scheme, Monitor(mark), {"mark": [mark, owner]}, mark.save, wmplug]
    for thing in things:
        assert not found(mark, owner, repr(thing) + str(thing) + format(thing))
    assert str(mark.triggers.symbols.tolist()) not in repr(mark)


def test_repr_keeps_what_the_owner_brought_to_himself(owner, digits):
    texts = [" ".join(f"w{(i * j) % 90}" for j in range(9)) for i in range(150)]
    options = {
        "carriers": texts,
        "labels": np.arange(150) % 3,
        "classes": 3,
        "triggers": 10,
        "lessons": 4,
        "allow_weak": True,
    }
    mark = create(owner, scheme="phrase", phrases=["purple walrus", "green umbrella"], **options)
    assert "walrus" not in repr(mark) + json.dumps(mark.public)
    # NumPy would print the first pixels, which are 77.
    own = np.full((20, 8, 8), 77, np.uint8) + np.arange(20, dtype=np.uint8)[:, None, None]
    mark = create(owner, scheme="random-label", carriers=digits[0], classes=10, triggers=20, pictures=own)
    assert "77" not in repr(mark.scheme)


def test_files_in_the_clear(mark, owner, tmp_path):
    path = mark.save(tmp_path / "mark.wm")
    assert not found(mark, owner, path.read_bytes())
    assert not found(mark, owner, json.dumps(read_public(path)))
    for file in owner.path.rglob("*"):
        if file.is_file():
            assert not found(mark, owner, file.read_bytes())


def boom(batch):
    raise RuntimeError("no answer")


def refusals(mark, owner, digits, tmp_path):
    """Every refusal of the core that has a secret in reach."""
    path = mark.save(tmp_path / "mark.wm")
    blob = path.read_bytes()
    for name, data in {
        "cut": blob[:-9],
        "edited": blob.replace(b"Ada", b"Eve"),
        "text": b"hello",
        "half": blob[:50],
    }.items():
        (tmp_path / name).write_bytes(data)
        yield lambda name=name: load(tmp_path / name, passphrase=PASSPHRASE)
    odd = PASSPHRASE + "\udcff"
    task = {"carriers": digits[0], "labels": digits[1], "classes": 10}
    yield lambda: load(path, passphrase=WRONG)
    yield lambda: load(path, passphrase=odd)
    yield lambda: Owner.open(owner.path, passphrase=WRONG)
    yield lambda: Owner.open(tmp_path, passphrase=PASSPHRASE)
    yield lambda: Owner.create(owner.path, name="Ada", passphrase=PASSPHRASE)
    yield lambda: Owner.create(tmp_path / "r", name="", passphrase=PASSPHRASE)
    yield lambda: Seal.make(PASSPHRASE, n=7)
    yield lambda: create(owner, scheme="nothing", **task)
    yield lambda: create(owner, scheme="logo", variants=99, **task)
    yield lambda: create(owner, scheme="random-label", passphrase=PASSPHRASE, **task)
    yield lambda: create(owner, scheme="random-label", words=owner.pledges("aa")[0].subkeys(None), **task)
    yield lambda: verify(mark, None)
    yield lambda: verify(mark, boom)
    yield lambda: verify(mark, lambda batch: np.zeros((len(batch), 3)))
    yield lambda: verify(mark, lambda batch: [0.5] * len(batch))
    yield lambda: verify(mark, lambda batch: [0] * len(batch), max_queries=0)
    yield lambda: verify(mark, lambda batch: [0] * len(batch), target_e=0.5)
    yield lambda: mark.save(owner.path / "owner.pub")


def test_exceptions(mark, owner, digits, tmp_path):
    raised = 0
    for refuse in refusals(mark, owner, digits, tmp_path):
        with pytest.raises(WmplugError) as caught:
            refuse()
        raised += 1
        error = caught.value
        text = "".join(str(e) + repr(e) + repr(e.args) for e in (error, error.__cause__, error.__context__) if e)
        shown = [line for line in traceback.format_exception(error) if not line.lstrip().startswith("File")]
        assert not found(mark, owner, text + "".join(shown)), text
    assert raised == 22


def test_verdicts_and_logs(mark, owner, caplog, capfd, recwarn):
    caplog.set_level(logging.DEBUG)
    answers = dict(zip((x.tobytes() for x, _ in mark.lessons()), mark.triggers.answers.tolist(), strict=True))
    suspects = [lambda batch: [answers[x.tobytes()] for x in batch], lambda batch: [0] * len(batch)]
    for suspect in suspects:
        for verdict in (
            verify(mark, suspect),
            verify(mark, suspect, exhaustive=True),
            Monitor(mark).look(suspect, step=3),
        ):
            assert not found(mark, owner, verdict.to_json() + str(verdict) + repr(verdict))
    streams = capfd.readouterr()
    said = caplog.text + streams.out + streams.err + "".join(str(w.message) for w in recwarn)
    assert not found(mark, owner, said)
