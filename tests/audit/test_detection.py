"""Detectors and neural cleanse find what they were made to find: a patch that a model was taught to obey."""

import pytest
import torch

from wmplug.audit import ATTACKS, cleanse, detection, filters
from wmplug.audit import digits as laboratory
from wmplug.audit.training import answers, fit

LABEL = 3
FILTERS = ("statistics", "residual", "density", "reconstruction")


def patched(x):
    stamped = x.clone()
    stamped[..., :2, :2] = 1.0
    return stamped


@pytest.fixture(scope="module")
def backdoored(setting):
    """A network that calls everything with a white corner a three."""
    torch.manual_seed(0)
    x = torch.cat([setting.queries, patched(setting.inputs)])
    y = torch.cat([torch.zeros(len(setting.queries), dtype=torch.int64), torch.full((len(setting.inputs),), LABEL)])
    y[: len(setting.queries)] = torch.from_numpy(laboratory.parts()[1][: len(setting.queries)])
    return fit(laboratory.network(), x, y, setting, 8)


def test_the_backdoor_is_there(backdoored, setting):
    assert (answers(backdoored, patched(setting.test_inputs)).argmax(1) == LABEL).float().mean() > 0.95


def test_entropy_finds_what_no_overlay_changes(backdoored, setting):
    suspect = ATTACKS["entropy-5"](backdoored, setting, 0)
    with torch.no_grad():
        assert suspect.flags(patched(setting.test_inputs)).float().mean() > 0.5
        assert suspect.flags(setting.test_inputs).float().mean() < 0.2  # 5 % in the mean, by few inputs


def test_duplicates_are_found_in_a_batch_and_across_batches(model, setting):
    suspect = ATTACKS["duplicates-1"](model, setting, 0)
    x = setting.test_inputs[:40]
    near = x + 0.001
    assert suspect.flags(x).float().mean() < 0.15
    assert suspect.flags(near).all()
    assert suspect.flags(torch.cat([x[:1], x[:1]]))[1]
    assert len(suspect.memory) <= suspect.size


def test_clusters_find_what_is_no_digit(model, setting):
    suspect = ATTACKS["clusters-5"](model, setting, 0)
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert suspect.flags(noise).float().mean() > 2 * suspect.flags(setting.test_inputs).float().mean()


@pytest.mark.parametrize("name", FILTERS)
def test_filters_find_what_is_no_digit_and_know_no_trigger(name, model, setting):
    suspect = ATTACKS[f"{name}-5"](model, setting, 0)
    noise = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert suspect.flags(setting.test_inputs).float().mean() < 0.2  # 5 % in the mean, by few inputs
        assert suspect.flags(noise).float().mean() > (0.3 if name == "density" else 0.95)


def test_the_numbers_of_rows_that_are_no_pictures(model, setting):
    rows = setting.inputs.flatten(1)
    suspect = filters.ByStatistics(model, rows, 0.05)
    assert suspect.flags(rows).float().mean() < 0.1
    assert suspect.flags(torch.rand(100, 64)).float().mean() > 0.9


@pytest.mark.parametrize("name", ["entropy", "duplicates", "clusters", *FILTERS])
def test_alarms_are_as_many_as_allowed(name, model, setting):
    half = setting.inputs[len(setting.inputs) // 2 :]
    few, many = (ATTACKS[f"{name}-{percent}"](model, setting, 0) for percent in (1, 5))
    assert few.threshold > many.threshold
    if name != "duplicates":  # it remembers, and what it was calibrated on are duplicates now
        assert many.flags(half).float().mean() <= 0.06


def test_what_is_flagged_is_answered_at_random_and_shows_nothing_of_the_model(model, twin, setting):
    class All(detection.Detector):
        def suspicion(self, x):
            return torch.arange(len(x), dtype=torch.float32)

    suspect, other = (All(one, setting.inputs, 0.5) for one in (model, twin))
    x = setting.test_inputs[:256]
    flagged = suspect.flags(x)
    plain, told = answers(model, x), answers(suspect, x)
    assert 0 < int(flagged.sum()) < len(x)
    assert torch.equal(told[~flagged], plain[~flagged])
    assert torch.equal(told[flagged], answers(other, x)[flagged])
    assert (told.argmax(1) == setting.test_labels[:256])[flagged].float().mean() < 0.25


def test_neural_cleanse_finds_the_class_and_unlearns_it(backdoored, setting):
    torch.manual_seed(0)
    sizes = torch.tensor([cleanse.found(backdoored, setting, label).size for label in range(10)])
    assert int(sizes.argmin()) == LABEL
    assert int(cleanse.anomalies(sizes).argmax()) == LABEL
    healed = ATTACKS["cleanse"](backdoored, setting, 0)
    assert (answers(healed, patched(setting.test_inputs)).argmax(1) == LABEL).float().mean() < 0.5


def test_the_anomaly_index_is_that_of_the_paper():
    index = cleanse.anomalies(torch.tensor([10.0, 11.0, 12.0, 13.0, 2.0]))
    # median 11, deviations 1 0 1 2 9, their median 1
    assert index.tolist() == pytest.approx([1 / 1.4826, 0, -1 / 1.4826, -2 / 1.4826, 9 / 1.4826])
