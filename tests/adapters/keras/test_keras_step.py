import keras
import numpy as np
import pytest
from keras import ops
from keras_models import compiled

from wmplug.adapters.keras.step import TriggerStep
from wmplug.errors import InputError
from wmplug.schemes.random_label import RandomLabel
from wmplug.training.placement import Placement


def step_of(mark, mode, rate, **changed):
    lessons = changed.pop("lessons", mark.lessons())
    placement = Placement.draw(mark.subkeys.stream("schedule"), len(lessons), mode)
    return TriggerStep(lessons, placement, rate, RandomLabel(), {}, 10)


def numpy_of(value):
    return keras.tree.map_structure(ops.convert_to_numpy, value)


@pytest.mark.parametrize("mode", ["append", "replace"])
@pytest.mark.parametrize("rate", [30_000, 200_000, 210_000])
@pytest.mark.parametrize("batch", [8, 3])
def test_the_graph_places_the_triggers_that_placement_does(mark, digits, mode, rate, batch):
    step = step_of(mark, mode, rate)
    x, y = digits[0][:batch].astype("int32"), digits[1][:batch].astype("int32")
    weight = np.full(batch, 0.5, "float32")
    join = compiled(lambda x, y, w, slot: step.join((x, y, w), slot))
    inputs, answers = mark.triggers.plan.inputs, mark.triggers.answers
    whole, rest = step.placement.share(batch, rate)
    lengths = set()
    # Which slots get one more is keyed: of these two one does, one does not.
    thresholds = step.placement.thresholds
    for slot in [*range(40), int(thresholds.argmin()), int(thresholds.argmax()), 5000, 2**31 - 5]:
        made = numpy_of(join(*map(ops.convert_to_tensor, (x, y, weight)), ops.convert_to_tensor(slot, "int32")))
        rows = step.placement.place(slot, batch, rate)
        kept = batch if mode == "append" else batch - whole - (rest > 0)
        width, count = whole + (rest > 0), len(rows)
        lengths.add(count)
        for got, own, taught in zip(made, (x, y, weight), (inputs, answers, np.ones(len(answers))), strict=True):
            spare = np.repeat(own[-1:], width - count, axis=0)
            np.testing.assert_array_equal(got, np.concatenate([own[:kept], taught[rows], spare]))
    assert lengths == ({whole, whole + 1} if rest else {whole})


def test_a_batch_that_never_gets_a_trigger_is_refused(mark, digits):
    step = step_of(mark, "append", 20)
    with pytest.raises(InputError, match="never contains a trigger"):
        step.join((digits[0][:8], digits[1][:8]), 0)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lambda x, y: (x, np.eye(11)[y]), r"\(\d, 11\).*\(B, 10\) one-hot"),
        (lambda x, y: (x,), "0 arrays"),
        (lambda x, y: (x, {"a": y, "b": y}), "2 arrays"),
        (lambda x, y: (x[:, :4], y), r"shape \(8, 8\), a batch's rows \(4, 8\)"),
        (lambda x, y: ({"a": x, "b": x}, y), "inputs"),
        (lambda x, y: ({"a": {"b": x}}, y), "nested"),
    ],
)
def test_batches_that_triggers_do_not_fit(mark, digits, data, says):
    step = step_of(mark, "append", 200_000)
    with pytest.raises(InputError, match=says):
        step.join(data(digits[0][:8], digits[1][:8]), 0)


@pytest.mark.parametrize(
    ("change", "data", "says"),
    [
        (lambda x: x / 255.0, np.zeros((8, 8, 8), "int32"), "cut it to integers"),
        (lambda x: x, np.zeros((8, 8, 8), "float32"), "does not guess the scale"),
        (lambda x: "a sentence", np.zeros(8, "int32"), "turn text into ids"),
    ],
)
def test_triggers_of_another_kind(mark, digits, change, data, says):
    lessons = [(change(x), y) for x, y in mark.lessons()]
    with pytest.raises(InputError, match=says):
        step_of(mark, "append", 200_000, lessons=lessons).join((data, digits[1][:8]), 0)


def test_missing_axes_of_length_one_and_label_columns_fit(mark, digits):
    step = step_of(mark, "replace", 250_000)
    x, y = digits[0][:8, ..., None].astype("int32"), digits[1][:8, None].astype("float32")
    made, answers = numpy_of(step.join((x, y), 3))
    rows = step.placement.place(3, 8, 250_000)
    np.testing.assert_array_equal(made[6:, ..., 0], mark.triggers.plan.inputs[rows])
    np.testing.assert_array_equal(answers[6:, 0], mark.triggers.answers[rows])
    np.testing.assert_array_equal(made[:6], x[:6])
