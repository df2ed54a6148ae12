"""Which triggers join a Trainer's batch is as it was in 0.1.0, for a watermark that 0.1.0 wrote."""

import dataclasses

import numpy as np
import pytest
import small
from vectors.frozen import cases
from vectors.frozen.contract import FROZEN

import wmplug
from wmplug.adapters.transformers import WatermarkCallback

PLACED = {
    ("append", 10): [1, 4, 2, 6, 7, 5, 2],
    ("append", 200): [3, 7, 5, 0, 2, 1],
    ("replace", 10): [7, 3, 4, 1, 5],
    ("replace", 200): [6, 2, 5, 1],
}


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("grey", [10, 200])
def test_the_same_triggers_join_the_same_batch(tmp_path, mode, grey):
    path = FROZEN / "0.1.0" / "marks" / "random-label-grey.wm"
    mark = dataclasses.replace(wmplug.load(path, passphrase=cases.PASSPHRASE, preprocess=small.prepare), register=None)
    known = {small.print_of(small.prepare(x, y)["pixel_values"]): row for row, (x, y) in enumerate(mark.lessons())}
    recorder = small.Recorder(tmp_path / "batches.jsonl")
    # Of equal examples, so that it does not matter how the Trainer shuffles.
    data = small.examples(np.full((16, 8, 8), grey, np.uint8), [3] * 16)
    callback = WatermarkCallback(mark, rate=0.3, mode=mode, verify_on=())
    small.trainer(tmp_path, data, [callback], data_collator=recorder, max_steps=2).train()
    rows = [[known[one] for one in batch["prints"] if one in known] for batch in recorder.batches()]
    assert rows[0] == rows[1] == PLACED[mode, grey]
