"""Two parties claim one model: the answers say whose marks it carries, the timestamps whose was first."""

import numpy as np
import pytest

from wmplug import create, verify
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors
from wmplug.register.checking import check
from wmplug.training.record import Run

PASSPHRASE = "correct horse battery staple"


def model(*marks):
    """What a model that has learnt these marks answers; elsewhere it goes by the brightness of the picture."""
    known = {}
    for mark in marks:
        for row in mark.triggers.plan.asked:
            known[mark.triggers.plan.inputs[row].tobytes()] = int(mark.triggers.answers[row])

    def answer(inputs):
        return np.array([known.get(x.tobytes(), int(x.sum()) % 10) for x in inputs])

    return answer


@pytest.fixture(scope="module")
def parties(tmp_path_factory, lab, digits):
    """Ada trains and has it stamped; then Eve takes her model, and teaches it a mark of her own."""
    marks = {}
    for name in ("Ada", "Eve"):
        owner = Owner.create(tmp_path_factory.mktemp(name), name=name, passphrase=PASSPHRASE, scrypt_n=2**10)
        Register.of(owner)
        anchors.trust(owner.path, lab.trust)
        mark = create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, triggers=60)
        Run(mark, "plain").start(data=digits[1], arguments={}, model=object())
        anchors.anchor(Register.of(owner))
        marks[name] = mark
    return marks


def bounds(mark, kind):
    """The times from outside that the first entry of a kind lies between."""
    seq = next(entry.seq for entry in Register(mark.register).entries() if entry.type == kind)
    return check(mark.register).between(seq)


def test_each_sides_own_model_says_who_took_from_whom(parties):
    ada, eve = parties["Ada"], parties["Eve"]
    adas, eves = model(ada), model(ada, eve)
    assert verify(ada, eves).proven
    assert verify(eve, eves).proven
    assert verify(ada, adas).proven
    assert not verify(eve, adas).proven


def test_the_timestamps_say_whose_mark_was_first(parties):
    ada, eve = parties["Ada"], parties["Eve"]
    assert check(ada.register).ok
    assert check(eve.register).ok
    _, adas_latest = bounds(ada, "training.started")
    eves_earliest, _ = bounds(eve, "triggers.committed")
    # Both from an authority: no clock of either party is believed.
    assert adas_latest <= eves_earliest


def test_eve_cannot_write_herself_into_an_earlier_time(parties):
    """Ada's token over Ada's entry is no token over Eve's, whatever her log says of it."""
    ada, eve = parties["Ada"], parties["Eve"]
    owner = Owner.open(eve.register, passphrase=PASSPHRASE)
    theirs = next(entry for entry in Register(ada.register).entries() if entry.type == "anchor")
    (eve.register / "anchors" / theirs.body["file"]).write_bytes(
        (ada.register / "anchors" / theirs.body["file"]).read_bytes()
    )
    first = next(iter(Register(eve.register).entries()))
    stolen = {**theirs.body, "head": 0, "hash": first.hash, "crls": []}
    Register.of(owner).append("anchor", stolen)
    found = {(finding.level, finding.code) for finding in check(eve.register).findings}
    assert ("refused", "wrong-imprint") in found
