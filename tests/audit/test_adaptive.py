"""Who knows the scheme: his own mark is learnt, his guesses hit what he guessed."""

import dataclasses

import pytest
import torch

import wmplug
from wmplug.audit import ATTACKS, adaptive
from wmplug.audit import digits as laboratory
from wmplug.audit.training import answers
from wmplug.errors import InputError
from wmplug.schemes.random_label import RandomLabel
from wmplug.schemes.tilt import features


def test_overwriting_teaches_the_rivals_mark(model, setting):
    known = dataclasses.replace(setting, scheme=RandomLabel(), epochs=10)
    suspect = ATTACKS["overwrite"](model, known, 0)
    rivals = wmplug.create(
        adaptive.made_up_owner("rival 0"),
        scheme="random-label",
        carriers=setting.asked.numpy(),
        labels=answers(model, setting.asked).argmax(1).numpy(),
        classes=10,
        preprocess=adaptive._example,
    )
    assert wmplug.verify(rivals, model, exhaustive=True).log10_p > -2
    assert wmplug.verify(rivals, suspect, exhaustive=True).log10_p < -4


def test_overwriting_needs_to_know_the_scheme(model, setting):
    with pytest.raises(InputError, match="`run` gives it"):
        ATTACKS["overwrite"](model, setting, 0)


def test_a_made_up_owner_is_the_same_again_and_another_for_another_name():
    one, same, other = (adaptive.made_up_owner(name) for name in ("a", "a", "b"))
    assert one.commitment == same.commitment != other.commitment


def test_guessed_triggers_are_forgotten_by_guessing(model, mark, setting):
    suspect = ATTACKS["guess-triggers"](model, setting, 0)
    before, after = (wmplug.verify(mark, net, exhaustive=True).parts[0].log10_p for net in (model, suspect))
    assert before < -6
    assert after > before


def test_a_guessed_tilt_is_subtracted(model, mark, setting):
    suspect = ATTACKS["guess-tilt"](model, setting, 0)
    before, after = (wmplug.verify(mark, net, exhaustive=True).parts[1].log10_p for net in (model, suspect))
    assert before < -6
    assert after > before / 2
    x = setting.test_inputs
    taken = answers(model, x) - answers(suspect, x)
    features_of = torch.cat([torch.ones(len(x), 1), torch.from_numpy(features.of_carriers(x.numpy())).float()], dim=1)
    left = taken - features_of @ torch.linalg.lstsq(features_of, taken).solution
    assert left.abs().max() < 0.01 * taken.abs().max()  # it is linear in the features


def test_foreign_pictures_are_of_the_same_kind_and_differ():
    made = laboratory.foreign(50)
    assert (made.shape, str(made.dtype)) == ((50, 8, 8), "uint8")
    assert len({picture.tobytes() for picture in made}) == 50
