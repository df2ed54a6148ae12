"""A watermark that could never be proven is refused, with the number that suffices."""

import re

import numpy as np
import pytest

import wmplug
from wmplug.errors import InputError
from wmplug.making.reach import check_reach
from wmplug.register import Register
from wmplug.schemes import Lessons, Pattern, Plan

PASSPHRASE = "correct horse battery staple"


def make(owner, digits, **options):
    given = {"scheme": "random-label", "carriers": digits[0][:300], "labels": digits[1][:300], "classes": 10}
    return wmplug.create(owner, **{**given, **options})


def perfect(mark):
    known = {mark.triggers.plan.inputs[i].tobytes(): int(y) for i, y in enumerate(mark.triggers.answers)}
    return lambda batch: [known[np.asarray(x).tobytes()] for x in batch]


@pytest.mark.parametrize(("classes", "few"), [(10, 5), (2, 15), (100, 2)])
def test_the_number_it_names_is_the_least_that_proves(owner, digits, classes, few):
    given = {"classes": classes, "labels": digits[1][:300] % min(classes, 10)}
    with pytest.raises(InputError, match=f"{few} draws of {classes} answers each cannot prove anything") as caught:
        make(owner, digits, triggers=few, **given)
    least = int(re.search(r"give triggers=(\d+)", str(caught.value))[1])
    assert least > few
    enough = make(owner, digits, triggers=least, **given)
    assert wmplug.verify(enough, perfect(enough)).proven
    below = make(owner, digits, triggers=least - 1, allow_weak=True, **given)
    assert not wmplug.verify(below, perfect(below)).proven


def test_variants_of_a_logo_count_as_the_draws_that_they_are(owner, digits):
    with pytest.raises(InputError, match=r"2 draws of . answers each cannot prove anything.*\d+ draws \(more variants"):
        make(owner, digits, scheme="logo", triggers=100, variants=1, classes=2, labels=digits[1][:300] % 2)


def test_too_few_signs_are_refused(owner, digits):
    rows = np.arange(50)
    lessons = Lessons(rows, np.full(50, -1), np.zeros(50, np.int64))
    with pytest.raises(InputError, match="19 signs cannot prove anything"):
        check_reach(Plan(digits[0][:50], lessons, (Pattern(rows, 19),)), 50)
    check_reach(Plan(digits[0][:50], lessons, (Pattern(rows, 20),)), 50)


def test_nothing_is_committed_to_for_it(digits, tmp_path):
    owner = wmplug.Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    with pytest.raises(InputError, match="or allow_weak=True"):
        make(owner, digits, triggers=5)
    Register.of(owner)
    assert "secret.committed" not in [entry.type for entry in Register(owner.path).entries()]
