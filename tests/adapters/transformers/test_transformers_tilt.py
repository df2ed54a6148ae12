"""tilt through the Trainer, beside triggers."""

import dataclasses

import pytest
import small
import torch

import wmplug
from wmplug.adapters.transformers import WatermarkCallback
from wmplug.errors import InjectionWarning
from wmplug.schemes.combined import Combined


def made(who, tilt, digits):
    images, labels = digits
    options = {f.name: getattr(tilt, f.name) for f in dataclasses.fields(tilt)}
    return wmplug.create(
        who,
        scheme=Combined(**options, share=0.25),
        carriers=images,
        labels=labels,
        classes=10,
        triggers=40,
        preprocess=small.prepare,
    )


def test_both_channels_are_taught_by_one_callback(tmp_path, owner, rival, tilt, digits):
    mark, rivals = made(owner, tilt, digits), made(rival, tilt, digits)
    trainer = small.trainer(
        tmp_path,
        small.examples(*digits),
        [WatermarkCallback(mark, rate=1 / 3)],
        model=small.tiny(width=256),
        max_steps=600,
        gradient_accumulation_steps=2,
    )
    trainer.train()
    verdict = wmplug.verify(mark, trainer.model, exhaustive=True)
    triggers, signs = verdict.parts
    assert triggers.log10_p < -6
    assert signs.log10_p < -6
    assert wmplug.verify(rivals, trainer.model, exhaustive=True).log10_p > -4
    plain = small.trainer(tmp_path, small.examples(*digits), [], max_steps=600)
    plain.train()
    assert wmplug.verify(mark, plain.model, exhaustive=True).log10_p > -4


class Breaking(small.Tiny):
    """Its loss is infinite from the sixtieth training step on."""

    def forward(self, pixel_values, labels=None):
        output = super().forward(pixel_values, labels)
        self.steps = getattr(self, "steps", 0) + self.training
        if self.training and self.steps > 60:
            output["loss"] = output.loss * torch.inf
        return output


def test_a_training_that_breaks_the_weights_stops_and_gives_them_back(tmp_path, owner, tilt, digits):
    trainer = small.trainer(
        tmp_path,
        small.examples(*digits),
        [WatermarkCallback(made(owner, tilt, digits), rate=1 / 3, verify_on=("train_end",))],
        model=small.tiny(kind=Breaking),
        num_train_epochs=3,
        max_steps=-1,
        max_grad_norm=0.0,
    )
    with pytest.warns(InjectionWarning, match="lower delta") as told:
        trainer.train()
    assert len([one for one in told if "lower delta" in str(one.message)]) == 1
    assert trainer.state.global_step < 100
    assert all(value.isfinite().all() for value in trainer.model.state_dict().values())
    assert small.logged(trainer.state, "watermark/matches")
