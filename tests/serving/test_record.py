import json
from types import SimpleNamespace

import pytest
from served_digits import pool

from wmplug import Owner, create, load, verify
from wmplug.errors import InputError, RegisterError, ServingError
from wmplug.register import checking
from wmplug.schemes.served import Served
from wmplug.serving import Log, Serving, commit
from wmplug.serving import log as logs

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def recorded(story, tmp_path, known_secrets):
    """A watermark of an owner with a register, and its log with some decisions."""
    with known_secrets("Ada"):
        owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    mark = create(
        owner,
        scheme=Served(cells=40, personal=0.0, pool=pool(story, story.carriers)),
        carriers=story.carriers,
        labels=story.labels,
        classes=10,
    )
    log = Log(tmp_path / "log.db", mark)
    Serving(mark, story.scores, log, gap=0.15).answer(story.asked)
    return mark, log


def entries(mark):
    return [json.loads(line) for line in (mark.register / "log.jsonl").read_text().splitlines()]


def test_the_root_of_the_log_is_in_the_register(recorded, story, asking):
    mark, log = recorded
    entry = commit(log, mark)
    decided = log.decided()
    assert entry.body["in_order"] == decided.digest
    assert entry.body["count"] == len(decided)
    assert checking.check(mark.register).ok
    # Without a token that dates it, it binds nothing yet.
    (choice,) = [one for one in asking(mark, decided).choices if one.what == "questions"]
    assert (choice.bound, choice.sha256) == (None, decided.digest)
    assert "no timestamp covers that yet" in str(choice)
    log.forget(customer="")
    Serving(mark, story.scores, log, gap=0.15).answer(story.asked[:500])
    (choice,) = [one for one in asking(mark, log.decided()).choices if one.what == "questions"]
    assert f"none of the register's logs, 1 in number; the last holds {len(decided)} questions" in str(choice)


def test_a_machine_that_serves_needs_only_the_watermark_file(recorded, story, tmp_path):
    mark, log = recorded
    loaded = load(mark.save(tmp_path / "served.wm"), passphrase=PASSPHRASE)
    replica = Serving(loaded, story.scores, gap=0.15)
    assert (replica.answer(story.asked) == Serving(mark, story.scores, gap=0.15).answer(story.asked)).all()
    assert commit(log, loaded).type == "dataset.committed"
    assert checking.check(mark.register).ok


def test_a_claim_from_the_log_is_proven_and_names_what_is_not_bound(recorded, story, asking):
    mark, log = recorded
    commit(log, mark)
    decided = log.decided()
    answers = Serving(mark, story.scores, gap=0.15).answer(decided.inputs).argmax(axis=1)
    told = {x.tobytes(): int(answer) for x, answer in zip(decided.inputs, answers, strict=True)}
    verdict = verify(asking(mark, decided), lambda inputs: [told[x.tobytes()] for x in inputs])
    assert verdict.proven
    assert "questions NOT COMMITTED" in str(verdict)


def test_a_log_is_committed_with_its_own_watermark(recorded, mark):
    with pytest.raises(InputError, match=f"the log belongs to watermark {mark.id}"):
        commit(SimpleNamespace(watermark=mark.id), recorded[0])


def test_a_commitment_goes_on_from_the_one_in_the_register(recorded, story, monkeypatch):
    mark, log = recorded
    commit(log, mark)
    Serving(mark, story.scores, log, gap=0.15).answer(story.asked, "acme")
    hashed, leaf = [], logs.leaf_of
    monkeypatch.setattr(logs, "leaf_of", lambda *row: (hashed.append(row), leaf(*row))[1])
    entry = commit(log, mark)
    assert {row[3] for row in hashed} == {"acme"}
    assert entry.body["in_order"] == log.decided().digest
    assert entry.body["count"] == 2 * len(hashed) == len(log.decided())
    assert checking.check(mark.register).ok


def test_an_empty_log_or_no_register_is_refused(recorded, story, mark, tmp_path):
    with pytest.raises(ServingError, match="no decision"):
        commit(Log(tmp_path / "empty.db", recorded[0]), recorded[0])
    with pytest.raises(RegisterError, match="no register"):
        commit(Log(tmp_path / "other.db", mark), mark)
