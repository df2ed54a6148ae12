"""Accuracy against evidence."""

import dataclasses
import json

import pytest
from PIL import Image

from wmplug.audit import sweep
from wmplug.audit.drawing import trade_off
from wmplug.errors import InputError


@pytest.fixture(scope="module")
def swept(mark, model, twin, setting):
    made = []

    def make(value, seed):
        made.append((value, seed))
        return (None, twin) if value is None else (mark, model)

    short = dataclasses.replace(setting, epochs=3)
    return sweep(make, short, (0.5, 1.0), (0,), attack="hard-clone"), made


def test_a_model_for_each_value_and_one_without(swept):
    found, made = swept
    assert made == [(None, 0), (0.5, 0), (1.0, 0)]
    assert [point.value for point in found.points] == [0.5, 1.0]
    first = found.points[0]
    assert first.own < -6
    assert first.clone > first.own
    assert 0.5 < first.clone_accuracy < 1
    assert "its accuracy" in str(found)


def test_it_is_written_and_drawn(swept, tmp_path):
    found, _ = swept
    document = json.loads(found.to_json())
    assert [point["value"] for point in document["points"]] == [0.5, 1.0]
    trade_off(tmp_path / "sweep.png", found)
    with Image.open(tmp_path / "sweep.png") as drawn:
        assert len(drawn.convert("RGB").getcolors(2**24)) > 20


def test_nothing_to_sweep_over(setting):
    with pytest.raises(InputError, match="sweeps over nothing"):
        sweep(lambda value, seed: None, setting, ())


def test_a_clone_that_cannot_be_made_is_said(mark, model, twin, setting):
    poor = dataclasses.replace(setting, others=None)
    with pytest.raises(InputError, match="attack 'foreign-clone' made no clone"):
        sweep(lambda v, seed: (None, twin) if v is None else (mark, model), poor, (1.0,), attack="foreign-clone")
