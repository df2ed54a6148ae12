import warnings

import numpy as np
import pytest

from wmplug.errors import InjectionWarning
from wmplug.register import Register
from wmplug.training.labels import IGNORED, other_label
from wmplug.training.loop import At
from wmplug.training.marking import Marking
from wmplug.training.options import Options


class Sparse:
    """As torch offers it."""

    def detach(self):
        raise RuntimeError


@pytest.mark.parametrize(
    ("labels", "classes", "other"),
    [
        ([1, 10, 3], 10, 10),
        ([1, -1, 1], 2, -1),
        ([-7, 3], 10, -7),
        (np.array([[4], [35]]), 10, 35),
        (np.array([0.0, 1.0, 2.0]), 2, 2),
        (np.array([0.2, 1.0, np.nan]), 2, None),
        ([0, -100, 9], 10, None),
        ([], 10, None),
        ([[35], [1, 2]], 10, None),
        (Sparse(), 10, None),
        (7, 2, 7),
        (np.eye(3) * 5, 3, None),
        (np.array(["a", "b"]), 2, None),
    ],
)
def test_a_whole_number_that_is_no_class_is_found(labels, classes, other):
    assert other_label(labels, classes) == other
    assert other_label(labels, classes, {other, *IGNORED}) is None


def test_a_run_tells_of_other_labels_once_and_puts_the_kind_on_record(mark, loop):
    marking = Marking(mark, loop, Options(on_failure="raise"))
    for _ in range(2):
        marking.begin()
        marking.start(data=[1, 2], arguments={}, model=None)
        marking.heed(None)
        with pytest.warns(InjectionWarning, match=r"holds the label 35, and .* made for 10 classes, 0 to 9.*classes="):
            marking.heed(35)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            marking.heed(36)
            marking.checkpoint(At(1))
        assert list(Register(mark.register).entries())[-1].body["trouble"] == "InjectionWarning"
        marking.checkpoint(At(2))
        assert "trouble" not in list(Register(mark.register).entries())[-1].body
