"""Which triggers join which step of `fit` is as it was in 0.1.0, for a watermark that 0.1.0 wrote."""

import dataclasses

import numpy as np
import pytest
from keras import ops
from keras_models import Probe, build
from vectors.frozen import cases
from vectors.frozen.contract import FROZEN

import wmplug
from wmplug.adapters.keras import WatermarkCallback

# Sums of the numbers of the triggers that came in a step, counted from 1.
PLACED = {
    "append": [5, 7, 11, 13, 5, 14, 5, 12, 13, 5, 8, 10, 7, 14, 6, 9, 3, 8, 14, 11],
    "replace": [5, 7, 4, 12, 9, 12, 6, 3, 2, 12, 13, 5, 8, 10, 7, 14, 6, 2, 7, 1],
}


@pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_the_same_triggers_join_the_same_steps(mode):
    mark = dataclasses.replace(
        wmplug.load(FROZEN / "0.1.0" / "marks" / "random-label-grey.wm", passphrase=cases.PASSPHRASE), register=None
    )
    probe = Probe(mark.triggers.plan.inputs)
    model = build(probe)
    images, labels = cases.drawn("grey", 40, 8, 8), cases.labels(40, 10)
    callback = WatermarkCallback(mark, rate=0.2, mode=mode, verify_on=())
    model.fit(images, labels, batch_size=8, epochs=4, verbose=0, callbacks=[callback])
    assert ops.convert_to_numpy(probe.diary).astype(np.int64)[:20].tolist() == PLACED[mode]
