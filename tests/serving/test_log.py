import dataclasses
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime, timedelta, timezone
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from served_digits import marked

from wmplug import InputError
from wmplug.errors import ServingError
from wmplug.serving import Log
from wmplug.serving import log as logs
from wmplug.watermark.decided import Decided

HERE = Path(__file__).parent


@pytest.fixture
def log(mark, tmp_path):
    made = Log(tmp_path / "log.db", mark)
    yield made
    made.close()


def asked(story, rows, who=""):
    rows = np.asarray(rows)
    low = rows % 9
    return Decided(story.asked[rows], np.stack([low, low + 1], axis=1), (who,) * len(rows))


def same(one, other):
    return np.array_equal(one.inputs, other.inputs) and np.array_equal(one.pairs, other.pairs)


def test_it_gives_back_what_was_decided(story, log):
    log.add(asked(story, range(5)))
    log.add(asked(story, range(5, 9), "acme"))
    found = log.decided()
    assert same(found, asked(story, range(9)))
    assert found.customers == ("",) * 5 + ("acme",) * 4
    assert found.inputs.dtype == story.asked.dtype


def test_what_was_decided_prints_as_its_numbers(story):
    assert repr(asked(story, range(5), "acme")) == "Decided(5 queries, 1 customers with a name)"


def test_what_is_asked_again_counts_once(story, log):
    for rows in ([1, 2, 1], [2, 3], [1]):
        log.add(asked(story, rows))
    assert same(log.decided(), asked(story, [1, 2, 3]))
    assert log.commit()[1] == 3


def test_a_commitment_takes_what_there_is(story, log):
    log.add(asked(story, range(4)))
    first, count = log.commit()
    assert (first, count) == (log.decided().digest, 4)
    log.add(asked(story, range(4, 6)))
    assert log.decided().digest == first
    second, count = log.commit()
    assert (second, count) == (log.decided().digest, 6) != (first, 4)


def test_who_serves_writes_on_while_a_commitment_is_hashed(story, log, mark, tmp_path, monkeypatch):
    log.add(asked(story, [1, 2]))
    replica, hashes = Log(tmp_path / "log.db", mark), logs.leaf_of

    def hashed(*row):
        replica.add(asked(story, [3]))
        return hashes(*row)

    monkeypatch.setattr(logs, "leaf_of", hashed)
    root, count = log.commit()
    replica.close()
    assert count == 2
    assert root == log.decided().digest
    assert sum(log.customers().values()) == 4


def test_nothing_is_committed_where_nothing_was_decided(log):
    with pytest.raises(ServingError, match="no decision"):
        log.commit()
    with pytest.raises(InputError, match="serve first"):
        log.decided()


def test_digests_alone_need_the_inputs(story, mark, tmp_path):
    log = Log(tmp_path / "log.db", mark, keep="digests")
    log.add(asked(story, range(5)))
    assert story.asked[0].tobytes() not in (tmp_path / "log.db").read_bytes() + (tmp_path / "log.db-wal").read_bytes()
    for kept in (story.asked, story.asked.tolist(), story.asked + 0.3):  # as the serving takes them
        assert same(log.decided(kept), asked(story, range(5)))
    with pytest.raises(InputError, match=r"2 of 5 queries are kept as digests.*give inputs="):
        log.decided(story.asked[2:])


def test_texts_come_back(tmp_path, mark):
    words = dataclasses.replace(
        mark,
        triggers=dataclasses.replace(mark.triggers, plan=dataclasses.replace(mark.triggers.plan, inputs=["a"] * 300)),
    )
    log = Log(tmp_path / "log.db", words)
    log.add(Decided(["grüße", "x\ny"], np.array([[0, 1], [2, 3]])))
    assert log.decided().inputs == ["grüße", "x\ny"]


def test_who_asked_can_be_forgotten(story, log):
    log.add(asked(story, range(5), "acme"))
    log.add(asked(story, range(5, 9), "umbra"))
    root, _ = log.commit()
    assert log.customers() == {"acme": 5, "umbra": 4}
    assert log.forget(customer="acme") == 5
    assert log.decided().customers == ("umbra",) * 4
    assert log.decided().digest != root
    assert log.commit()[0] == log.decided().digest


def test_what_is_old_can_be_forgotten(story, log):
    log.add(asked(story, range(5)))
    time.sleep(0.02)
    now = datetime.now(timezone.utc)
    time.sleep(0.02)
    log.add(asked(story, range(5, 9)))
    assert log.forget(before=now - timedelta(days=1)) == 0
    assert log.forget(before=now) == 5
    assert same(log.decided(), asked(story, range(5, 9)))


@pytest.mark.parametrize("given", [{}, {"before": datetime(2026, 1, 1)}, {"before": "2026-01-01"}])
def test_forgetting_needs_to_know_what(given, log):
    with pytest.raises(InputError, match="before="):
        log.forget(**given)


def test_a_log_belongs_to_one_watermark(story, log, tmp_path):
    with pytest.raises(InputError, match="belongs to watermark"):
        Log(tmp_path / "log.db", marked(story, "rival"))


def test_a_newer_log_is_left_alone(log, mark, tmp_path):
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("UPDATE wmplug_log SET value = '2' WHERE name = 'schema'")
    db.close()
    with pytest.raises(ServingError, match="schema 2, this wmplug knows 1"):
        Log(tmp_path / "log.db", mark)


@pytest.mark.parametrize("place", ["/nowhere/log.db", "postgresql+psycopg://nobody:s3cret@127.0.0.1:1/x", "no://x"])
def test_a_place_that_is_none_is_told_without_its_password(place, mark):
    with pytest.raises(ServingError, match="the log cannot be opened") as caught:
        Log(place, mark)
    assert "s3cret" not in str(caught.value)


def test_a_changed_input_is_found(story, log, tmp_path):
    log.add(asked(story, range(3)))
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("UPDATE wmplug_decisions SET input = zeroblob(64) WHERE number = 2")
    db.close()
    with pytest.raises(ServingError, match="differs from its digest"):
        log.decided()


def test_an_error_shows_no_query(story, log, tmp_path):
    with sqlite3.connect(tmp_path / "log.db") as db:
        db.execute("DROP TABLE wmplug_decisions")
    db.close()
    with pytest.raises(ServingError) as caught:
        log.add(asked(story, [0], "acme"))
    chain, told = caught.value, ""
    while chain is not None:
        told, chain = told + str(chain) + repr(chain), chain.__cause__ or chain.__context__
    assert "acme" not in told
    assert repr(story.asked[0].tobytes())[2:30] not in told


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["add", "commit", "forget"]), max_size=8), st.data())
def test_any_history_keeps_what_was_committed(story, mark, tmp_path_factory, steps, data):
    log, held, taken = Log(tmp_path_factory.mktemp("log") / "log.db", mark), [], []
    for step in steps:
        if step == "add":
            rows, who = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=4)), data.draw(st.sampled_from("ab"))
            log.add(asked(story, rows, who))
            held += [(row, who) for row in rows]
        elif step == "forget":
            log.forget(customer="a")
            held, taken = ([pair for pair in pairs if pair[1] != "a"] for pairs in (held, taken))
        elif held:
            taken = list(dict.fromkeys(held))
            assert log.commit()[1] == len(taken)
    if wanted := taken or list(dict.fromkeys(held)):
        found = log.decided()
        assert found.customers == tuple(who for _, who in wanted)
        assert np.array_equal(found.inputs, story.asked[[row for row, _ in wanted]])
    log.close()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["add", "commit", "forget", "delete"]), max_size=12), st.data())
def test_a_log_that_goes_on_hashing_has_the_root_of_the_whole(story, mark, tmp_path_factory, steps, data):
    place = tmp_path_factory.mktemp("log") / "log.db"
    log, committed = Log(place, mark), {}
    for step in [*steps, "add", "commit"]:
        if step == "add":
            rows, who = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=5)), data.draw(st.sampled_from("ab"))
            log.add(asked(story, rows, who))
        elif step == "forget":
            log.forget(customer="a")
        elif step == "delete":  # by other means than wmplug's
            with sqlite3.connect(place) as db:
                db.execute("DELETE FROM wmplug_decisions WHERE number = (SELECT max(number) FROM wmplug_decisions)")
            db.close()
        elif log.customers():
            root, count = log.commit(committed)
            found = log.decided()
            assert (root, count) == (found.digest, len(found)) == log.commit()
            if data.draw(st.booleans()):  # else the register was not written
                committed[root] = count
    log.close()


@pytest.fixture
def hashed(monkeypatch):
    """The leaves that are hashed from now on."""
    found, leaf = [], logs.leaf_of
    monkeypatch.setattr(logs, "leaf_of", lambda *row: (found.append(row), leaf(*row))[1])
    return found


def test_only_what_came_since_is_hashed(story, log, hashed):
    log.add(asked(story, range(100)))
    first = dict([log.commit()])
    log.add(asked(story, range(95, 103)))
    del hashed[:]
    second = dict([log.commit(first)])
    assert len(hashed) == 3
    assert log.commit(first | second) == (log.decided().digest, 103)
    assert len(hashed) == 3


@pytest.mark.parametrize("why", ["the register lacks the root", "another size", "deleted", "wrong peaks", "no peaks"])
def test_all_is_hashed_again_where_the_beginning_is_in_doubt(why, story, log, tmp_path, hashed):
    log.add(asked(story, range(10), "acme"))
    log.add(asked(story, range(10)))
    ((root, count),) = [log.commit()]
    log.add(asked(story, [20]))
    if why == "deleted":
        log.forget(customer="acme")
    if why in ("wrong peaks", "no peaks"):
        value = """replace(value, '"peaks": ["', '"peaks": ["00')""" if why == "wrong peaks" else "'{}'"
        with sqlite3.connect(tmp_path / "log.db") as db:
            db.execute(f"UPDATE wmplug_log SET value = {value} WHERE name = 'hashed'")
        db.close()
    del hashed[:]
    committed = {"the register lacks the root": {}, "another size": {root: count - 1}}.get(why, {root: count})
    assert log.commit(committed)[0] == log.decided().digest
    assert len(hashed) == (11 if why == "deleted" else 21)


def test_decisions_of_each_model_are_told_apart(story, log):
    log.add(asked(story, range(3)), "first")
    log.add(asked(story, range(2, 7)), "second")
    assert log.models() == {"first": 3, "second": 5}
    assert same(log.decided(model="second"), asked(story, range(2, 7)))
    with pytest.raises(InputError, match=r"no decision of model 'third', but of 'first', 'second'"):
        log.decided(model="third")


@pytest.fixture
def shared():
    """A folder that everybody may read, and its owner alone may write."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


def as_reader(read, *arguments):
    """What a function finds as a user who may write none of it."""
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        if os.getuid() == 0:
            pool.submit(os.setuid, 65534).result()
        return pool.submit(read, *arguments).result()


def read_all(place, mark):
    before = sorted(path.name for path in place.parent.iterdir())
    log = Log(place, mark, read_only=True)
    found = log.decided().digest, log.customers()
    log.close()
    assert sorted(path.name for path in place.parent.iterdir()) == before
    return found


class Facts(SimpleNamespace):
    """As much of a watermark as a log needs, since a watermark is not pickled."""


@pytest.fixture
def facts(mark):
    return Facts(id=mark.id, triggers=Facts(plan=Facts(inputs=mark.triggers.plan.inputs)))


@pytest.mark.parametrize("may_write", [False, True])
@pytest.mark.parametrize("writer", ["ended", "goes on"])
def test_who_may_only_read_reads(writer, may_write, story, mark, facts, shared):
    log = Log(shared / "a log?.db", mark)
    log.add(asked(story, range(5), "acme"))
    wanted = log.decided().digest, log.customers()
    if writer == "ended":
        log.close()
    if not may_write:
        os.chmod(shared, 0o555)
        for path in shared.iterdir():
            path.chmod(0o444)
    found = read_all(shared / "a log?.db", facts) if may_write else as_reader(read_all, shared / "a log?.db", facts)
    assert found == wanted
    log.close()
    os.chmod(shared, 0o755)


def test_a_log_opened_to_be_read_is_not_written(story, log, mark, tmp_path):
    log.add(asked(story, [1]))
    reader = Log(tmp_path / "log.db", mark, read_only=True)
    for write in (lambda: reader.add(asked(story, [2])), reader.commit, lambda: reader.forget(customer="")):
        with pytest.raises(ServingError, match=r"cannot be written .*readonly"):
            write()
    assert len(reader.decided()) == 1
    reader.close()
    with pytest.raises(ServingError, match="cannot be opened"):
        Log(tmp_path / "none.db", mark, read_only=True)
    assert not (tmp_path / "none.db").exists()


def test_a_driver_that_is_missing_is_named_with_what_installs_it(mark, monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(ServingError, match=r"psycopg.*pip install 'psycopg\[binary\]'.*postgresql\+psycopg://"):
        Log("postgresql+psycopg://owner@localhost/log", mark)


def test_what_was_acknowledged_outlives_200_kills(mark, tmp_path):
    """Four services at a time write to one log, and are killed in the middle of their work."""
    path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
    parent = subprocess.Popen(
        [sys.executable, HERE / "writer.py", tmp_path / "log.db", mark.id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    acknowledged, kills = set(), 0

    def next_pid():
        while not (line := parent.stdout.readline()).startswith("pid "):
            acknowledged.add(line.strip())
        return int(line.split()[1])

    for turn in range(50):
        pids = []
        for i in range(4):
            parent.stdin.write(f"{turn}.{i}\n")
            parent.stdin.flush()
            pids.append(next_pid())
        while not any(one.startswith(f"{turn}.") for one in acknowledged):
            acknowledged.add(parent.stdout.readline().strip())
        time.sleep(0.001 * turn)
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            kills += 1
    rest, _ = parent.communicate()
    acknowledged |= set(rest.split())
    log = Log(tmp_path / "log.db", mark)
    held = set(log.decided().customers)
    assert len(acknowledged) >= 50  # one a turn or more
    assert acknowledged <= held
    assert len(held - acknowledged) <= kills == 200  # on disk, and killed before it could say so
