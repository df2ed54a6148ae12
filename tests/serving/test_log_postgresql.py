"""The log in a real PostgreSQL server: many services, and a database that goes away and comes back."""

import contextlib
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from wmplug.errors import ServingWarning
from wmplug.serving import Decided, Log, Serving


class Server:
    """A server of Debian's postgresql on a free port, with a folder of its own."""

    def __init__(self):
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [shutil.which("pg_ctl")]
        if found == [None]:
            pytest.fail("these tests need a database: apt-get install postgresql")
        self.programs = found[-1] if found[-1].is_dir() else found[-1].parent
        # The server refuses to run as root.
        self.user = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self.folder = Path(tempfile.mkdtemp(prefix="wmplug-pg-"))
        if self.user:
            shutil.chown(self.folder, "postgres")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", self.folder / "data", "-U", "wmplug", "--auth=trust", "--no-sync")
        self.url = f"postgresql+psycopg://wmplug@127.0.0.1:{self.port}/postgres"

    def _run(self, program, *arguments):
        subprocess.run(
            [*self.user, self.programs / program, *arguments], check=True, stdout=subprocess.DEVNULL, cwd=self.folder
        )

    def start(self):
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1"
        log = self.folder / "server.log"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-l", log, "-o", options, "start")

    def stop(self):
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def server():
    made = Server()
    made.start()
    yield made
    with contextlib.suppress(subprocess.CalledProcessError):
        made.stop()
    shutil.rmtree(made.folder)


@pytest.fixture
def log(server, mark):
    made = Log(server.url, mark)
    yield made
    with made._engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE wmplug_decisions, wmplug_log")
    made.close()


def wait_for(growing):
    """Until a list has twenty more."""
    wanted, end = len(growing) + 20, time.monotonic() + 60
    while len(growing) < wanted:
        assert time.monotonic() < end
        time.sleep(0.01)


def asked(story, rows, who=""):
    rows = np.asarray(rows)
    return Decided(story.asked[rows], np.stack([rows % 9, rows % 9 + 1], axis=1), (who,) * len(rows))


def test_it_gives_back_what_was_decided_and_committed(story, log):
    log.add(asked(story, range(4)))
    log.add(asked(story, range(4, 9), "acme"))
    root, count = log.commit()
    log.add(asked(story, [10]))
    found = log.decided()
    assert (found.digest, len(found)) == (root, count) == (root, 9)
    assert np.array_equal(found.inputs, story.asked[:9])
    assert log.customers() == {"": 5, "acme": 5}
    assert log.forget(customer="acme") == 5


def test_a_database_that_was_away_is_found_again(story, mark, server, log):
    serving = Serving(mark, story.scores, log, gap=0.15)
    before = serving.answer(story.asked[:400])
    held = len(log.decided())
    server.stop()
    try:
        with pytest.warns(ServingWarning, match="UNMARKED"):
            assert np.array_equal(serving.answer(story.asked[400:]), story.scores(story.asked[400:]))
        assert np.array_equal(serving.answer(story.asked[:400]), before)  # the log holds these already
    finally:
        server.start()
    assert len(log.decided()) == held
    assert np.array_equal(serving.answer(story.asked[:400]), before)
    serving.answer(story.asked[400:])
    assert len(log.decided()) > held


def test_what_went_out_marked_is_in_the_log_though_the_database_restarts_under_load(story, mark, server, log):
    serving, plain = Serving(mark, log=log, gap=0.3), story.scores(story.asked)
    told = Serving(mark, gap=0.3).served(story.asked, plain)
    unsure = np.flatnonzero((told != plain).any(axis=1))
    stop, marked, unmarked = threading.Event(), [], []

    def ask(number):
        for turn in itertools.count():
            if stop.is_set():
                return
            row, name = unsure[turn % len(unsure)], f"{number}/{turn}"
            (answer,) = serving.served(story.asked[row : row + 1], plain[row : row + 1], name)
            is_plain = np.array_equal(answer, plain[row])
            assert is_plain or np.allclose(answer, told[row])
            (unmarked if is_plain else marked).append(name)

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(3) as threads:
        warnings.simplefilter("always")
        asking = [threads.submit(ask, number) for number in range(3)]
        try:
            for _ in range(2):
                wait_for(marked)
                server.stop()
                try:
                    wait_for(unmarked)
                finally:
                    server.start()
            wait_for(marked)
        finally:
            stop.set()
        for one in asking:
            one.result()
    held = set(log.customers())
    assert set(marked) <= held
    # A transaction whose acknowledgement was lost may be there: at most one for each thread and stop.
    assert len(held - set(marked)) <= 2 * len(asking)
    assert sum("UNMARKED: the log cannot be written" in str(one.message) for one in caught) == len(unmarked)


def test_workers_that_are_forked_with_an_open_log_all_write_to_it(story, log):
    """As under a server that loads the application before it forks."""
    log.add(asked(story, [0], "parent"))

    def write(worker):
        for row in range(30):
            log.add(asked(story, [row], f"worker {worker}"))

    fork = get_context("fork")
    workers = [fork.Process(target=write, args=(number,)) for number in range(4)]
    for one in workers:
        one.start()
    log.add(asked(story, [1], "parent"))
    for one in workers:
        one.join()
    assert [one.exitcode for one in workers] == [0] * 4
    assert log.customers() == {"parent": 2} | {f"worker {number}": 30 for number in range(4)}


def test_commitments_while_many_write_take_each_decision_once(story, mark, server, log):
    taken, stop = [], threading.Event()

    def write(name):
        own = Log(server.url, mark)
        for row in range(60):
            own.add(asked(story, [row], name))
        own.close()

    def commit():
        while not stop.is_set():
            with contextlib.suppress(Exception):  # nothing is there yet
                taken.append(log.commit()[1])

    writers = [threading.Thread(target=write, args=(f"writer {i}",)) for i in range(4)]
    committer = threading.Thread(target=commit)
    for thread in (*writers, committer):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    committer.join()
    root, count = log.commit()
    assert count == 4 * 60
    assert taken == sorted(taken)
    assert log.decided().digest == root
