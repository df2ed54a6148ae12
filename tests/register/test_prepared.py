"""What preprocess= gives a model is committed to, and held to it while a suspect is asked."""

import dataclasses

import numpy as np
import pytest

import wmplug
from wmplug.errors import EvidenceWarning
from wmplug.keys.owner import Owner
from wmplug.register import Register, prepared

PASSPHRASE = "correct horse battery staple"


def halved(image, answer):
    return np.asarray(image) // 2, answer


@pytest.fixture
def make(digits, tmp_path, known_secrets):
    def made(preprocess, **options):
        with known_secrets("Ada"):
            owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
        given = {"carriers": digits[0][:300], "labels": digits[1][:300], "classes": 10, "triggers": 60}
        return wmplug.create(owner, scheme="random-label", preprocess=preprocess, **{**given, **options})

    return made


def root_in(mark):
    (secret,) = [entry for entry in Register(mark.register).entries() if entry.type == "secret.committed"]
    return secret.body.get("prepared")


def test_the_register_commits_to_what_a_model_is_given_before_the_answers(make):
    mark = make(halved)
    assert root_in(mark) == prepared.root(halved, mark.triggers, 60) == mark.public["evidence"]["prepared"]
    assert root_in(mark) != prepared.root(lambda image, answer: (image, answer), mark.triggers, 60)


def test_the_inputs_follow_from_the_secret_alone_and_the_answers_from_the_salt_too(make):
    mark = make(halved)
    pledge = wmplug.Owner.open(mark.register, passphrase=PASSPHRASE).pledges(mark.id)[0]
    evidence = {**mark.public["evidence"], "salt": "00" * 31 + "01"}
    salted, plain = pledge.subkeys_of(evidence), pledge.subkeys(None)
    assert salted.key("input") == plain.key("input")
    assert salted.key("label") != plain.key("label")
    without = {name: value for name, value in evidence.items() if name != "prepared"}
    assert pledge.subkeys_of(without).key("input") != plain.key("input")


def watched(mark, function):
    """The choice after the suspect was given what the function makes of every row."""
    watch = mark.record.watch(mark.id, mark.triggers, function)
    for row in range(60):
        watch(mark.triggers.row(row), prepared.ANSWER)
    return watch.choice()


def test_the_function_that_was_committed_to_is_bound(make):
    mark = make(halved)
    choice = watched(mark, lambda image, answer: halved(image, answer))
    assert (choice.bound, choice.sha256) == ("committed", root_in(mark))


def test_another_function_is_not(make):
    mark = make(halved)
    assert watched(mark, lambda image, answer: (np.asarray(image) // 3, answer)).bound is None


def test_a_function_that_changes_after_the_first_look_is_not(make):
    mark, looks = make(halved), []

    def turns(image, answer):
        looks.append(0)
        return (np.asarray(image) // (2 if len(looks) <= 60 else 3), answer)

    assert watched(mark, turns).bound is None


def test_what_the_function_writes_into_its_examples_later_reaches_no_suspect(make):
    mark, given = make(halved), []

    def rewrites(image, answer):
        for old in given:
            old[...] = 0
        given[:] = [np.asarray(image) // 2]
        image[...] = 0
        return given[0], answer

    watch = mark.record.watch(mark.id, mark.triggers, rewrites)
    images = [mark.triggers.row(row) for row in range(3)]
    examples = [watch(image, prepared.ANSWER)[0] for image in images]
    for image, example in zip(images, examples, strict=True):
        np.testing.assert_array_equal(example, image // 2)
    assert watch.choice().bound == "committed"


def test_an_example_that_cannot_be_copied_is_not(make):
    @dataclasses.dataclass
    class Example:
        image: np.ndarray

    mark = make(lambda image, answer: Example(image // 2))
    assert root_in(mark)
    assert watched(mark, lambda image, answer: Example(image // 2)).bound is None


def test_a_function_that_raises_is_not_and_the_suspect_reports_it(make):
    mark = make(halved)
    watch = mark.record.watch(mark.id, mark.triggers, lambda image, answer: 1 / 0)
    assert watch.choice().bound is None
    with pytest.raises(ZeroDivisionError):
        watch(mark.triggers.row(0), 0)


def test_rows_beyond_the_committed_ones_are_not(make):
    mark = make(halved)
    watch = prepared.Watched(halved, mark.triggers, 59, prepared.root(halved, mark.triggers, 59))
    assert watch.choice().bound is None


def test_a_function_that_draws_is_told_once_and_named_ever_after(make):
    def noisy(image, answer):
        return np.asarray(image) + np.random.random(np.shape(image)), answer

    with pytest.warns(EvidenceWarning, match="cannot be committed to, it draws at random: verdicts name it"):
        mark = make(noisy)
    assert root_in(mark) is None
    assert "prepared" not in mark.public["evidence"]
    assert watched(mark, noisy).bound is None


def test_the_verdict_names_a_preprocess_that_the_register_does_not_know(make, digits, tmp_path):
    mark = make(halved)
    file = mark.save(tmp_path / "mark.wm")

    def asks(prepares):
        loaded = wmplug.load(file, passphrase=PASSPHRASE, preprocess=prepares)
        return wmplug.verify(loaded, lambda batch: [0] * len(batch))

    assert "preprocess" not in str(asks(halved))
    assert "; preprocess NOT COMMITTED" in str(asks(lambda image, answer: (np.asarray(image) + 1, answer)))
    bare = dataclasses.replace(wmplug.load(file, passphrase=PASSPHRASE, preprocess=halved), record=None)
    assert "preprocess NOT COMMITTED" in str(wmplug.verify(bare, lambda batch: [0] * len(batch)))
