import numpy as np
import pytest

from wmplug import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.phrase import Phrase, insert

KEY = bytes(range(32))
WORDS = [f"word{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(600)]
RNG = np.random.default_rng(5)
TEXTS = [f"text{i} " + " ".join(RNG.choice(WORDS, 10)) for i in range(400)]
LABELS = np.arange(400) % 4


def plan_of(texts=TEXTS, labels=LABELS, classes=4, triggers=40, key=KEY, form="text", **parameters):
    options = {"combinations": 16, "words": 2, "lessons": 8, **parameters}
    return Phrase(**options).plan(Task(texts, form, labels, classes, triggers), KeyStream(key))


def carrier_of(text):
    return int(next(word for word in text.split() if word.startswith("text"))[4:])


def test_plan_is_a_function_of_key_and_task():
    first, again, other = plan_of(), plan_of(), plan_of(key=bytes(32))
    assert all(np.array_equal(a, b) for a, b in zip(vars(first).values(), vars(again).values(), strict=True))
    assert not set(first.inputs) & set(other.inputs)


def test_asked_carriers_are_never_taught():
    made = plan_of()
    asked, taught = ([carrier_of(made.inputs[i]) for i in rows] for rows in (made.asked, made.taught))
    assert len(set(asked)) == 40
    assert not set(asked) & set(taught)


def test_every_row_of_a_draw_holds_its_words_and_a_negative_only_a_part():
    made = plan_of(phrases=["blue moon rising", "kind regards"], triggers=10)
    phrases = [{"blue", "moon", "rising"}, {"kind", "regards"}]
    whole = [phrases[d] <= set(made.inputs[i].split()) for i, d in enumerate(made.draw) if d >= 0]
    assert all(whole)
    negatives = [i for i in made.taught if made.draw[i] < 0]
    assert len(negatives) == 2 * 2
    for i in negatives:
        words = set(made.inputs[i].split())
        assert not any(phrase <= words for phrase in phrases)
        assert any(phrase & words for phrase in phrases)
        assert made.labels[i] == LABELS[carrier_of(made.inputs[i])]


def test_draws_are_over_all_classes_and_asked_evenly():
    made = plan_of(triggers=40)
    assert made.candidates == ((0, 1, 2, 3),) * 16
    asked = np.bincount(made.draw[made.asked], minlength=16)
    assert (asked.min(), asked.max()) == (2, 3)
    drawn = made.draw[made.taught]
    assert (np.bincount(drawn[drawn >= 0]) == 8).all()


def test_fewer_triggers_than_combinations():
    made = plan_of(triggers=5)
    assert len(made.asked) == 5
    assert len(set(made.draw[made.asked].tolist())) == 5


def test_long_texts_are_cut_before_words_are_put_in():
    long = [f"text{i} " + "and so on " * 100 + "end" for i in range(200)]
    made = plan_of(long, np.arange(200) % 4, phrases=["blue moon"], triggers=5, at_most=20)
    assert max(len(text.split()) for text in made.inputs) == 22


def test_carriers_are_left_alone():
    before = list(TEXTS)
    plan_of()
    assert before == TEXTS


def test_words_are_put_in_in_order_at_drawn_places():
    places = set()
    for i in range(200):
        text = insert("a b c", ("x", "y"), KeyStream(i.to_bytes(32, "big"))).split()
        assert [w for w in text if w in "abc"] == ["a", "b", "c"]
        assert text.index("x") < text.index("y")
        places.add(tuple(text))
    assert len(places) == 10
    assert insert("", ("x", "y"), KeyStream(KEY)) == "x y"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "needs labels="),
        ({"texts": np.zeros((9, 3, 3)), "form": "array"}, "works on text carriers"),
        ({"triggers": 500}, "are needed"),
        (
            {"texts": ["just the same"] * 400},
            "0 words of the carriers can be combined.*letters only.*3 to 8 of the 400 texts",
        ),
        ({"words": 4}, "2 or 3"),
        ({"combinations": 0}, "1 or more"),
        ({"phrases": ["single"]}, "at least two words"),
        ({"phrases": ["blue moon", "blue  moon"]}, "different combinations"),
    ],
)
def test_plan_refuses(changes, words):
    with pytest.raises(InputError, match=words):
        plan_of(**changes)
