import numpy as np
import pytest
from PIL import Image

from wmplug import InputError, create
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief
from wmplug.schemes.logo import Logo
from wmplug.tasks import Classes
from wmplug.testing.schemes import facts_of

KEY = bytes(range(32))
RNG = np.random.default_rng(7)


def pictures(n=120, size=12):
    """Soft pictures of three classes."""
    labels = np.arange(n) % 3
    base = np.linspace(0, 1, size)[None, :, None] * (labels[:, None, None] + 1) / 3
    return (150 * base + 60 * RNG.random((n, size, size))).astype(np.uint8), labels


X, Y = pictures()
LAYOUTS = {
    "n h w uint8": X,
    "n h w c uint8": np.repeat(X[..., None], 3, axis=-1),
    "n c h w uint8": np.repeat(X[:, None], 3, axis=1),
    "n h w float": (X / 255).astype(np.float32),
    "n c h w normalised": ((X[:, None] / 255 - 0.5) / 0.25).astype(np.float64),
    "n h w 1": X[..., None],
    "int32": X.astype(np.int32),
}


def plan_of(carriers=X, labels=Y, classes=3, triggers=30, key=KEY, form="array", **parameters):
    task = Brief(carriers, form, Classes(classes), labels, triggers)
    return Logo(**{"variants": 2, "lessons": 6, **parameters}).plan(task, KeyStream(key))


@pytest.mark.parametrize("rule", ["per-class", "per-carrier"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_made_pictures_are_as_the_carriers(layout, rule):
    carriers = LAYOUTS[layout]
    before = carriers.copy()
    made = plan_of(carriers, rule=rule)
    assert made.inputs.shape[1:] == carriers.shape[1:]
    assert made.inputs.dtype == carriers.dtype
    low, high = (0, 255) if carriers.dtype == np.uint8 else (carriers.min(), carriers.max())
    assert low - 1e-6 <= made.inputs.min() <= made.inputs.max() <= high + 1e-6
    assert (carriers == before).all()
    assert len(made.choices.rows) == 30


@pytest.mark.parametrize("rule", ["per-class", "per-carrier"])
def test_plan_is_a_function_of_key_and_task(rule):
    first, again, other = plan_of(rule=rule), plan_of(rule=rule), plan_of(rule=rule, key=bytes(32))
    assert facts_of(first) == facts_of(again)
    assert not np.array_equal(first.inputs, other.inputs)


def carrier_of(row, carriers):
    """Which carrier a stamped picture was made from: the one it shares most pixels with."""
    return int(np.argmax((carriers == row).reshape(len(carriers), -1).sum(axis=1)))


@pytest.mark.parametrize("rule", ["per-class", "per-carrier"])
def test_stamp_covers_its_spot_and_nothing_else(rule):
    made = plan_of(rule=rule)
    for row in made.inputs:
        changed = np.argwhere(row != X[carrier_of(row, X)])
        assert len(changed) >= 1
        assert (np.ptp(changed, axis=0) < round(0.3 * 12)).all()


def test_asked_carriers_are_never_taught():
    made = plan_of()
    asked, taught = ({carrier_of(made.inputs[i], X) for i in rows} for rows in (made.choices.rows, made.lessons.rows))
    assert len(asked) == 30
    assert not asked & taught


@pytest.mark.parametrize("rule", ["per-class", "per-carrier"])
def test_candidates_leave_out_the_natural_class_and_negatives_keep_it(rule):
    made = plan_of(rule=rule)
    for row, draw, label in zip(made.inputs, made.draw, made.natural, strict=True):
        natural = int(Y[carrier_of(row, X)])
        if draw < 0:
            assert label == natural
        else:
            assert set(made.options[draw]) == {0, 1, 2} - {natural}
    negatives = (made.draw[made.lessons.rows] < 0).sum()
    assert 0 < negatives < len(made.lessons.rows)


def test_two_classes_keep_both_candidates():
    made = plan_of(labels=Y % 2, classes=2)
    assert set(made.options) == {(0, 1)}


def test_one_draw_for_each_variant_and_class():
    made = plan_of(variants=4, triggers=30)
    assert len(made.options) == 12
    asked = np.bincount(made.draw[made.choices.rows], minlength=12)
    taught = np.bincount(made.draw[made.lessons.rows][made.draw[made.lessons.rows] >= 0], minlength=12)
    assert (asked.min(), asked.max(), asked.sum()) == (2, 3, 30)
    assert (taught == 6).all()


def test_near_misses_never_carry_the_mark():
    made = plan_of(rule="per-carrier", variants=1, triggers=40, size=0.5)
    marked = np.array([i for i in range(len(made.draw)) if made.draw[i] >= 0])
    missed = np.array([i for i in range(len(made.draw)) if made.draw[i] < 0])
    spot = np.argwhere((made.inputs[marked] == made.inputs[marked][0]).all(axis=0))
    at = tuple(spot.T)
    assert len(spot) >= 4
    assert not any((made.inputs[i][at] == made.inputs[marked[0]][at]).all() for i in missed)


@pytest.mark.parametrize("size", [8, 12, 28])
def test_every_key_draws_a_logo_that_is_seen_and_a_near_miss_that_is_another(size):
    carriers = np.zeros((60, size, size), np.uint8)
    carriers[:, size // 2] = 255
    for key in range(40):
        made = plan_of(carriers, np.arange(60) % 2, classes=2, triggers=4, lessons=2, key=key.to_bytes(32, "big"))
        patterns = {x.tobytes() for x in made.inputs[made.draw >= 0]}
        misses = {x.tobytes() for x in made.inputs[made.draw < 0]}
        assert carriers[0].tobytes() not in patterns | misses
        assert not patterns & misses


def test_own_logo_from_a_file_and_as_an_array_are_one(owner, tmp_path):
    logo = np.zeros((20, 40, 4), np.uint8)
    logo[4:16, 4:36] = (255, 200, 0, 255)
    Image.fromarray(logo).save(tmp_path / "logo.png")
    options = {
        "scheme": "logo",
        "carriers": LAYOUTS["n h w c uint8"],
        "labels": Y,
        "classes": 3,
        "triggers": 30,
        "lessons": 6,
        "allow_weak": True,
    }
    from_file = create(owner, logo=tmp_path / "logo.png", **options)
    from_text = create(owner, logo=str(tmp_path / "logo.png"), **options)
    from_array = create(owner, logo=logo, **options)
    assert from_file.id == from_text.id == from_array.id
    assert from_file.public["parameters"]["logo"].startswith("sha256:")
    assert create(owner, logo=logo[..., [1, 0, 2, 3]], **options).id != from_file.id


def test_own_logo_keeps_its_proportions_and_its_transparency():
    logo = np.zeros((10, 30, 4))
    logo[:, 15:] = (1, 1, 1, 1)
    carriers = np.full((120, 24, 24, 3), 100, np.uint8)
    carriers[:, 0, 0] = np.arange(120)[:, None]  # to be told apart
    made = plan_of(carriers, logo=logo, size=0.5, variants=1, rule="per-carrier", triggers=10)
    for row in made.inputs[:10]:
        changed = np.argwhere((row != 100).any(axis=-1) & (np.indices((24, 24)).sum(axis=0) > 0))
        # 12 wide by scale, of which the right half is opaque; 4 high.
        assert np.ptp(changed, axis=0).tolist() == [3, 5]


@pytest.mark.parametrize(
    ("logo", "words"),
    [
        (np.zeros((5, 5)), "hardly visible"),
        (np.zeros((5, 5, 4)), "hardly visible"),
        (np.zeros((5, 5, 7)), r"shape \(5, 5, 7\)"),
        (np.full((5, 5), 2.0), "uint8 or"),
        (np.full((5, 5), -0.1), "uint8 or"),
        (np.full((5, 5), np.nan), "uint8 or"),
        (np.zeros((0, 5)), "cannot be read"),
        (np.zeros((5, 5), np.int64), "dtype int64"),
        ("no/such/logo.png", "cannot be read as a picture"),
        (__file__, "cannot be read as a picture"),
    ],
)
def test_logos_refused(logo, words):
    black = np.where(X > 180, X, 0).astype(np.uint8)
    with pytest.raises(InputError, match=words):
        plan_of(black, logo=logo)


def test_colour_logo_on_grey_carriers_and_grey_logo_on_colour():
    colour = np.ones((6, 6, 3)) * [1.0, 0.5, 0.0]
    assert plan_of(X, logo=colour).inputs.shape[1:] == (12, 12)
    assert plan_of(LAYOUTS["n c h w uint8"], logo=np.ones((6, 6))).inputs.shape[1:] == (3, 12, 12)
    with pytest.raises(InputError, match="3 colours, the carriers 4"):
        plan_of(np.repeat(X[..., None], 4, axis=-1), logo=colour)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"labels": None}, "needs labels="),
        ({"carriers": ["a"] * 120, "form": "text"}, "works on array or pil carriers"),
        ({"classes": 4}, "class 3 has 0 carriers"),
        ({"lessons": 100}, "are needed"),
        ({"carriers": X[:, :2, :2]}, "too small"),
        ({"size": 0.7}, "0.05 to 0.6"),
        ({"size": float("nan")}, "0.05 to 0.6"),
        ({"variants": 0}, "1 to 8"),
        ({"lessons": 0}, "1 or more"),
    ],
)
def test_plan_refuses(changes, words):
    with pytest.raises(InputError, match=words):
        plan_of(**changes)
