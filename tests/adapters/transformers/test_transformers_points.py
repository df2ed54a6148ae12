"""The injection points `logits` and `loss` through the Trainer, with a scheme that uses both."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import small
import torch
from transformers import TrainerCallback

import wmplug
from wmplug import InjectionError
from wmplug.adapters.torch.points import strip
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.schemes.random_label import RandomLabel

PULL = 3.0


@dataclass(frozen=True)
class Pulling(RandomLabel):
    """Training sees logits of class 3 raised by PULL, and a loss that is PULL too large."""

    name: ClassVar[str] = "pulling"
    points: ClassVar[frozenset] = frozenset({"samples", "logits", "loss"})

    def constants(self, triggers, seen):
        return {"pull": np.eye(10, dtype=np.float32)[3] * PULL, "extra": np.float32([PULL])}

    def shift(self, xp, constants, inputs, logits):
        return logits + constants["pull"]

    def term(self, xp, constants, inputs, logits, labels):
        return constants["extra"][0] + 0.0 * logits.sum()


@pytest.fixture(scope="module")
def pulling(owner, digits):
    images, labels = digits
    return wmplug.create(
        owner, scheme=Pulling(), carriers=images, labels=labels, classes=10, triggers=20, preprocess=small.prepare
    )


def losses(folder, data, callbacks, kind, **options):
    """The loss of the first logged step; nothing is learnt, so that two runs can be compared."""
    trainer = small.trainer(
        folder,
        data,
        callbacks,
        model=small.tiny(kind=kind),
        learning_rate=0.0,
        max_steps=2,
        logging_strategy="steps",
        logging_steps=1,
        **options,
    )
    trainer.model.dropout.p = 0.0
    trainer.train()
    return trainer, small.logged(trainer.state, "loss")


@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("kind", [small.Tiny, small.Summing])
def test_the_term_is_added_once_whatever_is_accumulated(tmp_path, data, mark, pulling, kind, accumulation):
    options = {"gradient_accumulation_steps": accumulation, "per_device_train_batch_size": 8}
    _, plain = losses(tmp_path, data, [WatermarkCallback(mark, rate=0.125, verify_on=())], kind, **options)
    trainer, pulled = losses(tmp_path, data, [WatermarkCallback(pulling, rate=0.125, verify_on=())], kind, **options)
    # The shift moves the mean loss of untrained logits by -PULL / 10 + log((9 + e^PULL) / 10), the term by PULL.
    shift = np.log((9 + np.exp(PULL)) / 10) - PULL / 10
    assert pulled[0] - plain[0] == pytest.approx(PULL + shift, abs=0.35)
    assert strip(trainer.model) == 0


class Serving(TrainerCallback):
    """Compares what the model answers in eval mode, in the middle of training, with its own layers."""

    differences: list

    def on_step_end(self, args, state, control, model, **kwargs):
        model.eval()
        x = torch.ones(2, 8, 8)
        with torch.no_grad():
            plain = model.head(torch.relu(model.body(x.flatten(1))))
            self.differences.append(float((model(x).logits - plain).abs().max()))
        model.train()


def test_the_model_is_served_unmodified(tmp_path, data, pulling):
    serving = Serving()
    serving.differences = []
    seen = []
    trainer = small.trainer(tmp_path, data, [WatermarkCallback(pulling, verify_on=()), serving], max_steps=2)
    trainer.model.register_forward_hook(lambda m, a, k, o: seen.append(o.logits.mean(0)[3].item()), with_kwargs=True)
    trainer.train()
    assert serving.differences == [0.0, 0.0]
    assert max(seen) > PULL - 1


def test_a_loss_outside_the_model_is_refused(tmp_path, data, pulling):
    trainer = small.trainer(tmp_path, data, [WatermarkCallback(pulling, verify_on=())], label_smoothing_factor=0.1)
    with pytest.raises(InjectionError, match="no loss passed here"):
        trainer.train()


def test_hooks_of_a_failed_run_are_stripped_at_the_next_start(tmp_path, data, pulling):
    class Failing(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            raise OSError("disk full")

    trainer = small.trainer(tmp_path, data, [WatermarkCallback(pulling, verify_on=()), Failing()], max_steps=2)
    with pytest.raises(OSError, match="disk full"):
        trainer.train()
    assert len(trainer.model._forward_pre_hooks) > 0
    trainer.remove_callback(Failing)
    trainer.train()
    assert strip(trainer.model) == 0
