import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

import wmplug

LOOP = Path(__file__).with_name("loop.py")
PASSPHRASE = "the loop's own"


@pytest.fixture
def train(tmp_path):
    """Runs the loop in a folder with the watermark in it; gives the exit code."""
    owner = wmplug.Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    carriers = (load_digits().images / 16).astype(np.float32)
    mark = wmplug.create(owner, scheme="random-label", carriers=carriers, classes=10, triggers=40)

    def run(folder, *options):
        if not (tmp_path / folder).exists():
            mark.save(tmp_path / folder / "mark.wm")
        command = [sys.executable, "-W", "ignore", str(LOOP), str(tmp_path / folder), *options]
        code = subprocess.run(command, env={**os.environ, "WMPLUG_PASSPHRASE": PASSPHRASE}, timeout=300).returncode
        return code, dict(line.split(" ", 1) for line in (tmp_path / folder / "batches.txt").read_text().splitlines())

    purposes = ("input", "label", "schedule", "disclosure")
    run.keys = [*(mark.subkeys.key(purpose) for purpose in purposes), owner._roots[0], mark.signing_seed()]
    run.folder = tmp_path
    return run


def test_killed_and_resumed_gives_the_same_triggers_at_the_same_steps(train):
    code, whole = train("whole")
    assert code == 0
    assert {line.split()[0] for line in whole.values()} >= {"131", "132"}  # 128 and three or four triggers
    code, died = train("killed", "--workers", "2", "--die-at", "20")
    assert code == -signal.SIGKILL
    assert len(died) == 20
    # What was trained after the last checkpoint is trained, and recorded, again.
    code, resumed = train("killed")
    assert code == 0
    assert resumed == whole
    for file in train.folder.glob("[kw]*/*"):
        blob = file.read_bytes()
        assert not any(key in blob or key.hex().encode() in blob for key in train.keys), file
