"""A watermark with a register, and one short run of it."""

import numpy as np
import pytest

import wmplug
from wmplug.training.record import Run

PASSPHRASE = "correct horse battery staple"


class Story:
    """Trains, as far as wmplug can see."""

    def __init__(self, folder):
        self.owner = wmplug.Owner.create(folder, name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
        carriers = np.random.default_rng(0).integers(0, 255, (100, 8, 8), dtype=np.uint8)
        self.mark = wmplug.create(self.owner, scheme="random-label", carriers=carriers, classes=10, triggers=20)

    def train(self):
        run = Run(self.mark, "plain")
        run.start(data=[1, 2], arguments={"lr": 0.1, "note": "trade secret"}, model=object())
        monitor = wmplug.Monitor(self.mark)
        for step in (10, 20):
            verdict = monitor.look(_answer, step=step, run={"adapter": "plain", "step": step, "epoch": 1.0})
            run.checkpoint(verdict, step=step, epoch=1.0)
        run.finish(verdict, step=20, epoch=2.0, system={"w": np.arange(3.0)}, total=20)
        return verdict


def _answer(inputs):
    return np.zeros(len(inputs), int)


@pytest.fixture
def story(tmp_path):
    return Story(tmp_path / "register")
