"""A run that is killed and resumed, and one with NNX, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from keras_models import BACKEND

SCRIPT = Path(__file__).with_name("diary_run.py")


@pytest.fixture(scope="module")
def train(mark, tmp_path_factory):
    path = mark.save(tmp_path_factory.mktemp("mark") / "digits.wm")

    def run(folder, kill="", **environment):
        # What the test's process may have been given to import by comes along.
        known = {"WMPLUG_PASSPHRASE": "correct horse battery staple", "PYTHONPATH": os.pathsep.join(sys.path)}
        return subprocess.run(
            [sys.executable, SCRIPT, path, folder, kill],
            env={**os.environ, **known, **environment},
            capture_output=True,
            text=True,
            timeout=300,
        )

    return run


@pytest.fixture(scope="module")
def whole(train, tmp_path_factory):
    return read(train(tmp_path_factory.mktemp("whole")))


def read(done):
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_killed_run_goes_on_with_the_same_triggers_at_the_same_steps(train, whole, tmp_path):
    assert whole["steps"] == 24
    assert len(set(whole["diary"][:24])) > 12
    assert train(tmp_path, "kill").returncode == -signal.SIGKILL
    assert any(path.is_file() for path in tmp_path.rglob("*"))
    assert read(train(tmp_path)) == whole


if BACKEND == "jax":

    def test_nnx_gives_the_same_triggers_at_the_same_steps(train, whole, tmp_path):
        assert read(train(tmp_path, KERAS_NNX_ENABLED="true")) == whole
