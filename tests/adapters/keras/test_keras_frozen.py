"""Which triggers join which step of `fit` stays as it is, for a watermark that 0.1.0 wrote."""

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

# Sums of the numbers of the triggers that came in a step, counted from 1. Before one schedule served all adapters,
# Keras drew its own, whatever the mode.
PLACED = {
    "append": [13, 10, 8, 5, 5, 8, 12, 11, 8, 7, 11, 10, 7, 7, 10, 12, 3, 7, 11, 15],
    "replace": [5, 8, 7, 9, 7, 10, 1, 15, 5, 11, 3, 5, 1, 8, 4, 9, 13, 8, 1, 2],
}


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
    assert ops.convert_to_numpy(probe.diary).astype(np.int64)[:20].tolist() == sums == PLACED[mode]
