"""A watermark that 0.1.0 wrote joins the steps of `fit` by the one schedule that all adapters have since."""

import dataclasses

import numpy as np
import pytest
from keras import ops
from keras_models import Probe, build
from vectors.frozen import cases
from vectors.frozen.contract import FROZEN

import wmplug
from wmplug.adapters.keras import WatermarkCallback
from wmplug.training.placement import Placement


@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_the_triggers_of_the_one_schedule_join_the_steps(mode):
    mark = dataclasses.replace(
        wmplug.load(FROZEN / "0.1.0" / "marks" / "random-label-grey.wm", passphrase=cases.PASSPHRASE), register=None
    )
    probe = Probe(mark.triggers.plan.inputs)
    model = build(probe)
    images, labels = cases.drawn("grey", 40, 8, 8), cases.labels(40, 10)
    callback = WatermarkCallback(mark, rate=0.2, mode=mode, verify_on=())
    model.fit(images, labels, batch_size=8, epochs=4, verbose=0, callbacks=[callback])
    # test_torch_frozen.py and test_transformers_frozen.py hold this schedule to what 0.1.0 had.
    schedule = Placement.draw(mark.subkeys.stream("schedule", mode), len(mark.lessons()), mode)
    sums = [int((schedule.place(step, 8, 200_000) + 1).sum()) for step in range(20)]
    assert ops.convert_to_numpy(probe.diary).astype(np.int64)[:20].tolist() == sums
