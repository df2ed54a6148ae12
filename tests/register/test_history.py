"""What a register says about a verification: how many keys it knows, and whether a log of queries was there before."""

import json

import numpy as np
import pytest
from PIL import Image

from wmplug import create, verify
from wmplug.errors import RegisterError
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors
from wmplug.register.history import History, log_of
from wmplug.watermark.carriers import digest, read_carriers

PASSPHRASE = "correct horse battery staple"
QUERIES = np.arange(200, dtype=np.float32).reshape(50, 4)


@pytest.fixture
def owner(tmp_path):
    return Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)


@pytest.fixture
def dated(owner, neutral):
    anchors.trust(owner.path, neutral)
    return owner


def commit(owner, queries):
    return Register.of(owner).append("dataset.committed", log_of(queries))


def logged(owner, queries=QUERIES):
    return History(owner.path).logged(digest(read_carriers(queries)[0]))


def test_every_secret_counts_as_a_key(owner, digits):
    given = {"scheme": "random-label", "carriers": digits[0][:300], "classes": 10}
    marks = [create(owner, triggers=triggers, **given) for triggers in (20, 21)]
    assert History(owner.path).past(marks[0].id) == (2, frozenset())


def test_a_register_without_the_marks_own_secret_counts_nothing(owner, digits, tmp_path):
    """Whoever empties a log, or shows another register, hides as many tries as it held."""
    given = {"scheme": "random-label", "carriers": digits[0][:300], "classes": 10}
    mark = [create(owner, triggers=triggers, **given) for triggers in (20, 21)][1]
    log = owner.path / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    last = max(entry.seq for entry in Register(owner.path).entries() if entry.type == "secret.committed")
    for left in (lines[:last], []):
        log.write_bytes(b"".join(left))
        with pytest.raises(RegisterError, match=f"holds no commitment to {mark.id}: restore the whole register"):
            History(owner.path).past(mark.id)
        assert "; tries NOT COUNTED" in str(verify(mark, lambda batch: [0] * len(batch)))


def test_a_whole_log_that_an_authority_dated_is_bound_and_says_since_when(dated):
    commit(dated, QUERIES)
    anchors.anchor(Register.of(dated))
    choice = logged(dated)
    (stamped,) = [entry.body for entry in Register(dated.path).entries() if entry.type == "anchor"]
    assert (choice.bound, choice.note, choice.tries) == ("committed", f"by {stamped['gen_time']}", 1)
    assert choice.sha256 == log_of(QUERIES)["in_order"]


def test_part_of_a_log_or_another_order_is_another_log(dated):
    commit(dated, QUERIES)
    anchors.anchor(Register.of(dated))
    for other in (QUERIES[:49], QUERIES[::-1].copy()):
        choice = logged(dated, other)
        assert choice.bound is None
        assert str(choice).endswith("(they are none of the register's logs, 1 in number; the last holds 50 questions)")


def test_pictures_are_committed_to_as_they_are_asked(dated):
    pictures = [Image.fromarray(np.full((6, 6), 10 * i, np.uint8)) for i in range(20)]
    commit(dated, pictures)
    anchors.anchor(Register.of(dated))
    assert logged(dated, read_carriers(pictures)[0]).bound == "committed"


def test_each_log_counts_as_a_try(dated):
    for day in range(3):
        commit(dated, QUERIES + day)
    commit(dated, QUERIES)  # again
    anchors.anchor(Register.of(dated))
    assert logged(dated).tries == 3


def test_a_training_set_is_no_log_of_queries(dated):
    from wmplug.register import assets

    Register.of(dated).append("dataset.committed", assets.dataset(QUERIES))
    anchors.anchor(Register.of(dated))
    assert logged(dated).bound is None
    assert logged(dated).note == "(the register holds no log of questions)"


def test_what_no_authority_dated_is_not_bound(owner):
    commit(owner, QUERIES)
    assert logged(owner).bound is None
    assert "no timestamp covers that yet" in logged(owner).note


def test_what_a_lab_dated_is_not_bound(owner, lab):
    anchors.trust(owner.path, lab.trust)
    commit(owner, QUERIES)
    anchors.anchor(Register.of(owner))
    assert logged(owner).bound is None
    assert "dated by a lab's own authority alone" in logged(owner).note


def test_a_log_that_came_after_the_token_is_not_bound(dated):
    Register.of(dated)
    anchors.anchor(Register.of(dated))
    commit(dated, QUERIES)
    assert logged(dated).bound is None


def test_the_logs_own_word_for_a_token_binds_nothing(dated):
    """An owner can write any entry; the token that it names must be there, and hold."""
    commit(dated, QUERIES)
    anchors.anchor(Register.of(dated))
    assert logged(dated).bound == "committed"
    for token in (dated.path / "anchors").glob("*.tsr"):
        token.write_bytes(token.read_bytes()[:-40])
    assert logged(dated).bound is None
    assert "fails `wmplug register check`" in logged(dated).note


def test_a_register_that_is_gone_or_damaged_binds_nothing(dated, tmp_path):
    assert History(tmp_path / "nowhere").logged(digest(QUERIES)).note == "(the register cannot be read)"
    commit(dated, QUERIES)
    anchors.anchor(Register.of(dated))
    log = dated.path / "log.jsonl"
    lines = log.read_text().splitlines()
    entry = json.loads(lines[1])
    log.write_text("\n".join([lines[0], json.dumps({**entry, "signature": "00" * 64}), *lines[2:]]) + "\n")
    assert logged(dated).bound is None
