"""Which triggers join which batch of a loader is as it was in 0.1.0, for a watermark that 0.1.0 wrote."""

import pytest
import torch
from torch.utils.data import DataLoader
from vectors.frozen import cases
from vectors.frozen.contract import FROZEN

import wmplug
from wmplug.adapters.torch import inject

PLACED = {
    "append": [[1, 6, 5, 7], [2, 1, 7], [7, 4, 1, 3], [5, 3, 0], [3, 1, 7]],
    "replace": [[5, 1], [6, 7], [3, 6], [7, 2], [2, 5]],
}


# Its labels number the examples, so that 30 of them are no class of the mark.
@pytest.mark.filterwarnings("ignore:the training data holds the label:wmplug.errors.InjectionWarning")
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_the_same_triggers_join_the_same_batches(mode):
    mark = wmplug.load(FROZEN / "0.1.0" / "marks" / "random-label-grey.wm", passphrase=cases.PASSPHRASE)
    known = {x.tobytes(): row for row, (x, _) in enumerate(mark.lessons())}
    data = [(torch.tensor(x), y) for x, y in zip(cases.drawn("grey", 40, 8, 8), range(40), strict=True)]
    order = [7 * i % 40 for i in range(40)]
    loader = inject(DataLoader(data, 8, sampler=order), mark, rate=0.3, mode=mode)
    rows = [[known[x.numpy().tobytes()] for x in batch if x.numpy().tobytes() in known] for batch, _ in loader]
    assert rows == PLACED[mode]
