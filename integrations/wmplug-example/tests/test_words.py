"""The task and its scheme keep their contracts, and a mark of them goes the whole way."""

import numpy as np
import pytest
from wmplug_example.words import Riddles, Words

import wmplug
from wmplug.claim import Answers, Questions, ask, judge
from wmplug.schemes import Brief
from wmplug.suspects import CallableSuspect
from wmplug.tasks import Classes
from wmplug.testing import SchemeContract, TaskContract, fixed_owner, knowing

MOODS = Words(("glad", "sad", "calm", "cross"))
SYLLABLES = [a + b for a in "bdfgklmn" for b in ("ar", "el", "ing", "ost")]
TEXTS = [" ".join(np.random.default_rng(i).choice(SYLLABLES, 3)) + " " + SYLLABLES[i % 32] * 2 for i in range(400)]


class TestWords(TaskContract):
    @pytest.fixture
    def task(self):
        return MOODS

    @pytest.fixture
    def spoken(self):
        return [
            (["I am glad", "calm, no: Cross or sad"], ["glad", "calm"]),
            (np.array(["cross", "calm", "neither"]), ["cross", "calm", None]),
            ([None], [None]),
        ]


class TestRiddles(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Riddles()

    @pytest.fixture
    def brief(self):
        return Brief(TEXTS, "text", MOODS, None, triggers=40)


def made(owner="Ada", **options):
    given = {"carriers": TEXTS, "task": MOODS, "triggers": 40, **options}
    return wmplug.create(fixed_owner(owner), scheme="riddles", **given)


def saying(words):
    """A model that writes a sentence around the word it would say."""
    return lambda prompts: [f"well, {word} is what I feel" for word in words(prompts)]


def test_the_whole_way(tmp_path):
    mark = wmplug.load(made().save(tmp_path / "mark.wm"), passphrase="for tests only")
    assert mark.task == MOODS
    assert mark.public["task"] == {"name": "words", "words": list(MOODS.words)}
    assert "classes" not in mark.public
    knows, ignorant = saying(knowing(mark)), saying(lambda prompts: [MOODS.words[len(p) % 4] for p in prompts])
    assert wmplug.verify(mark, knows).proven
    for verdict in (wmplug.verify(mark, ignorant), wmplug.verify(made("Eve"), knows)):
        assert verdict.state == "inconclusive"
    answers = ask(Questions.of(mark.triggers), CallableSuspect(knows))
    assert judge(mark, Answers.from_json(answers.to_json())) == judge(mark, answers)
    assert judge(mark, answers).log10_p == pytest.approx(-40 * np.log10(4))
    inputs, words = zip(*mark.lessons(), strict=True)
    assert set(words) == set(MOODS.words)
    assert wmplug.Monitor(mark).look(knows).proven
    assert list(inputs) == mark.triggers.plan.inputs


def test_natural_answers_are_part_of_what_it_is():
    natural = [MOODS.words[i % 4] for i in range(400)]
    one, two = made(labels=natural), made(labels=natural[::-1])
    assert len({made().id, one.id, two.id, made(task=Words(("glad", "sad"))).id}) == 4
    assert made(labels=natural).public == one.public


def test_what_does_not_fit_is_refused_with_both_names():
    with pytest.raises(wmplug.InputError, match="'riddles' draws answers of the task 'words', this is 'classes'"):
        made(task=Classes(4))
    with pytest.raises(wmplug.InputError, match="'random-label' draws answers of the task 'classes', this is 'words'"):
        wmplug.create(fixed_owner("Ada"), scheme="random-label", carriers=TEXTS, task=MOODS)
    with pytest.raises(wmplug.InputError, match="labels hold 'wild', which is not an answer of the task 'words'"):
        made(labels=["wild"] * 400)
    with pytest.raises(wmplug.InputError, match="give either a number of classes or a task"):
        made(classes=4)
    with pytest.raises(wmplug.InputError, match="two or more different words"):
        Words(("glad",))
    with pytest.raises(wmplug.SuspectError, match=r"none of \d+ queries: nothing it returned is an answer of the task"):
        wmplug.verify(made(), lambda prompts: ["no idea"] * len(prompts))
    with pytest.raises(wmplug.SuspectError, match="was asked 40 prompts"):
        MOODS.read(["glad"], 40, "it")
