"""tilt through the Trainer, beside triggers."""

import dataclasses

import small

import wmplug
from wmplug.adapters.transformers import WatermarkCallback
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
        [WatermarkCallback(mark)],
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
