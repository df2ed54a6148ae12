"""The loop of JAX keeps the contract of all adapters."""

import contextlib
import pickle

import jax
from loops import ADAM, Shuffled, epoch, predict, weights

from wmplug.testing import AdapterContract


class TestJax(AdapterContract):
    adapter = "jax"

    def train(self, images, labels, watermark, folder):
        params, batches = weights(), Shuffled(images, labels, 50)
        state = ADAM.init(params)
        made = watermark(predict=predict, batches=batches, rate=0.2, params=params) if watermark else None
        with made or contextlib.nullcontext():
            for _ in range(30):
                params, state = epoch(params, state, made.batches if made else batches)
            (folder / "params.pkl").write_bytes(pickle.dumps(jax.device_get(params)))
            if made:
                made.checkpoint(params, path=folder / "params.pkl")
                (folder / "marking.pkl").write_bytes(pickle.dumps(made.state_dict()))
        return lambda x: predict(params, x)

    def train_beside(self, images, labels, watermark):
        params, batches = weights(), Shuffled(images, labels, 50)
        with watermark(predict=predict, batches=batches):
            epoch(params, ADAM.init(params), batches)

    def train_briefly(self, images, labels, watermark, looks):
        params, logged = weights(), []
        state = ADAM.init(params)
        with watermark(predict=predict, batches=Shuffled(images[:100], labels[:100], 50), log=logged.append) as marking:
            for number in range(1, looks + 1):
                params, state = epoch(params, state, marking.batches)
                marking.checkpoint(params, epoch=number)
                if marking.stopped:
                    break
        return logged


def test_it_carries_what_the_page_of_supported_things_says():
    from wmplug.adapters.jax.loop import JaxLoop

    assert JaxLoop.points == {"samples"}
    assert JaxLoop.calls == {"classify", "predict"}
