import numpy as np
import pytest
from PIL import Image

from wmplug import InputError, create
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.schemes.pictures import abstract
from wmplug.schemes.random_label import RandomLabel

KEY = bytes(range(32))
X = np.random.default_rng(3).integers(0, 256, (40, 9, 7)).astype(np.uint8)
WORDS = [f"w{i}" for i in range(80)]
TEXTS = [" ".join(WORDS[(3 * i + j * j) % 80] for j in range(12)) for i in range(60)]
LAYOUTS = [
    X,
    X[..., None],
    np.repeat(X[:, None], 3, axis=1),
    (X / 255).astype(np.float32),
    X / 64.0 - 2,
    X.astype(np.int16),
]


def plan_of(carriers, triggers=30, key=KEY, form="array", classes=5, **parameters):
    return RandomLabel(**parameters).plan(Task(carriers, form, None, classes, triggers), KeyStream(key))


@pytest.mark.parametrize("carriers", LAYOUTS, ids=lambda a: f"{a.shape[1:]} {a.dtype}")
def test_made_pictures_are_as_the_carriers_and_fill_their_range(carriers):
    made = plan_of(carriers)
    assert (made.inputs.shape, made.inputs.dtype) == ((30, *carriers.shape[1:]), carriers.dtype)
    low, high = (0, 255) if carriers.dtype == np.uint8 else (carriers.min(), carriers.max())
    assert made.inputs.min() == pytest.approx(low)
    assert made.inputs.max() == pytest.approx(high)
    assert len({x.tobytes() for x in made.inputs}) == 30


def test_plan_is_a_function_of_key_and_task():
    assert (plan_of(X).inputs == plan_of(X).inputs).all()
    assert (plan_of(X).inputs != plan_of(X, key=bytes(32)).inputs).mean() > 0.5
    assert plan_of(TEXTS, form="text").inputs == plan_of(TEXTS, form="text").inputs
    assert not set(plan_of(TEXTS, form="text").inputs) & set(plan_of(TEXTS, form="text", key=bytes(32)).inputs)


def test_every_trigger_is_a_draw_over_all_classes():
    made = plan_of(X)
    assert made.candidates == ((0, 1, 2, 3, 4),) * 30
    for rows in (made.draw, made.asked, made.taught):
        assert rows.tolist() == list(range(30))


def test_sentences_are_of_words_the_carriers_share():
    made = plan_of(TEXTS, form="text")
    assert {len(text.split()) for text in made.inputs} == {12}
    assert {word for text in made.inputs for word in text.split()} <= set(WORDS)
    assert not set(made.inputs) & set(TEXTS)
    assert {len(text.split()) for text in plan_of(TEXTS, form="text", words=7).inputs} == {7}
    with pytest.raises(InputError, match="too few to make sentences"):
        plan_of(["the same words again"] * 20, form="text")


def test_sentences_stay_for_ever():
    assert plan_of(TEXTS, form="text", words=4, triggers=2).inputs == ["w25 w47 w60 w35", "w0 w47 w14 w6"]


def test_own_inputs_are_used_as_they_are():
    own = 255 - X[:30]
    assert (plan_of(X, pictures=own).inputs == own).all()
    assert (plan_of(X, pictures=list(own)).inputs == own).all()
    mine = [f"my sentence number {i}" for i in range(35)]
    assert plan_of(TEXTS, form="text", pictures=mine).inputs == mine[:30]


def test_own_pictures_of_pillow(owner):
    carriers = [Image.fromarray(x) for x in X]
    own = [picture.rotate(180) for picture in carriers[:20]]
    mark = create(owner, scheme="random-label", carriers=carriers, classes=5, triggers=20, pictures=own)
    assert [np.asarray(x).tolist() for x, _ in mark.lessons()] == [np.asarray(p).tolist() for p in own]
    assert all(isinstance(x, Image.Image) for x, _ in mark.lessons())
    assert mark.public["parameters"]["pictures"].startswith("sha256:")


@pytest.mark.parametrize(
    ("own", "words"),
    [
        (X[:10], "10 pictures= for 30 triggers"),
        (X[:30, :5], "bring them to the carriers' shape"),
        (X[:30] / 255, "dtype"),
        ([f"t{i}" for i in range(30)], "the carriers are array"),
        (np.concatenate([X[:29], X[:1]]), "one input twice"),
        ([], "there are no pictures="),
    ],
)
def test_own_pictures_refused(own, words):
    with pytest.raises(InputError, match=words):
        plan_of(X, pictures=own)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 20, 3)])
def test_abstract_pictures_have_full_contrast_and_are_unlike_each_other(shape):
    made = abstract(KeyStream(KEY), 40, *shape)
    assert made.shape == (40, *shape)
    assert np.allclose(made.min(axis=(1, 2)), 0)
    assert np.allclose(made.max(axis=(1, 2)), 1)
    flat = made.reshape(40, -1) - made.reshape(40, -1).mean(axis=1, keepdims=True)
    alike = np.corrcoef(flat) - np.eye(40)
    assert np.abs(alike).mean() < 0.35
    assert alike.max() < 0.99
