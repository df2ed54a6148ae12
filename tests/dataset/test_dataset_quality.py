"""What a mark did to a data set, and what cleaning leaves of it."""

import math
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_breast_cancer
from sklearn.neighbors import KNeighborsClassifier

import wmplug
from wmplug.dataset.quality import CLEANINGS, cleaned, compare, picture, retrained, survival
from wmplug.dataset.records import Record
from wmplug.dataset.schemes.canaries import Canaries
from wmplug.dataset.schemes.label_twins import LabelTwins
from wmplug.dataset.schemes.twins import Twins
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError

PICTURES = ("dedup", "jpeg", "resize", "shuffle", "half")


def publish(owner, scheme, inputs, labels, count=60, classes=10):
    """A mark on the first records, and the marked copy as inputs and labels."""
    mark = wmplug.create(
        owner, scheme=scheme, carriers=inputs[:count], labels=labels[:count], classes=classes, triggers=count
    )
    pairs = enumerate(zip(inputs, labels, strict=True))
    records = [Record(i, f"record {i}", value, int(label)) for i, (value, label) in pairs]
    return mark, open_source((inputs, labels)).write(
        None, mark.scheme.changes(mark.triggers, records, len(records))
    ).data


def twin_labels(labels, count=60):
    """label-twins between a record's own label and the next class."""
    chosen = np.zeros((count, 10), np.float32)
    chosen[np.arange(count), labels[:count]], chosen[np.arange(count), (labels[:count] + 1) % 10] = 0.5, 0.5
    return LabelTwins(pool=chosen)


@pytest.fixture(scope="module")
def relabelled(owner, patches):
    return publish(owner, twin_labels(patches[1]), *patches)


@pytest.fixture(scope="module")
def mirrored(owner, patches):
    return publish(owner, Twins(change="mirror"), *patches)


def test_a_copy_that_is_the_same_has_no_change(patches):
    order = np.random.default_rng(1).permutation(160)
    found = compare(open_source(patches), open_source((patches[0][order], patches[1][order])))
    assert (found.records, found.changed, found.relabelled, found.added, found.removed) == (160, 0, 0, 0, 0)
    assert found.psnr is found.ssim is None
    assert found.noise == 0


def test_labels_that_changed_are_counted(patches, relabelled):
    labels = relabelled[1][1]
    found = compare(open_source(patches), open_source(relabelled[1]))
    assert found.relabelled == (labels != patches[1]).sum() > 20
    assert (found.changed, found.added) == (0, 0)
    assert found.noise == found.relabelled / 160
    assert f"{found.relabelled} labels" in str(found)


def test_pictures_that_changed_are_measured(patches, mirrored):
    before, after = patches[0], mirrored[1][0]
    rows = np.flatnonzero((before != after).any(axis=(1, 2, 3)))
    order = np.random.default_rng(1).permutation(160)
    found = compare(open_source(patches), open_source((after[order], patches[1][order])))
    assert (found.changed, found.relabelled, found.added) == (len(rows), 0, 0)
    errors = ((before[rows].astype(float) - after[rows]) ** 2).mean(axis=(1, 2, 3))
    assert found.psnr == pytest.approx((10 * np.log10(255**2 / errors.max()), (10 * np.log10(255**2 / errors)).mean()))
    assert -1 < found.ssim[0] < found.ssim[1] < 1
    assert found.cells == found.words == (0, 0)


def test_what_was_added_is_counted(owner, patches):
    _, copy = publish(owner, Canaries(), *patches, count=30)
    found = compare(open_source(patches), open_source(copy))
    assert (found.records, found.added, found.removed, found.changed, found.relabelled) == (160, 30, 0, 0, 0)
    back = compare(open_source(copy), open_source(patches))
    assert (back.added, back.removed) == (0, 30)


def test_cells_and_words_are_counted(owner):
    table, labels = load_breast_cancer(return_X_y=True)
    changed = table.copy()
    changed[:20, 3] *= 1 + 1e-6
    found = compare(open_source((table, labels)), open_source((changed, labels)))
    assert (found.changed, found.cells) == (20, (20, table.size))
    words = ["the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog", "again"]
    texts = [" ".join(f"{word}{i}" for word in words) for i in range(9)]
    rewritten = [text.replace("quick3", "fast3").replace("lazy4 ", "") for text in texts]
    found = compare(open_source((texts, list(range(9)))), open_source((rewritten, list(range(9)))))
    assert (found.changed, found.words) == (2, (2, 90))
    assert "2 of 90 words" in str(found)


def test_before_and_after_are_drawn(patches, relabelled, mirrored, tmp_path):
    found = compare(open_source(patches), open_source(mirrored[1]))
    drawn = np.asarray(Image.open(picture(found, tmp_path / "quality.png")))
    colours = np.unique(drawn.reshape(-1, 3), axis=0)
    assert len(colours) > 1000
    assert "examples" not in repr(found)
    assert "examples" not in found.to_json()
    with pytest.raises(InputError, match="no picture changed"):
        picture(compare(open_source(patches), open_source(relabelled[1])), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize("how", PICTURES)
def test_cleaning_leaves_a_claim(relabelled, how):
    mark, (inputs, labels) = relabelled
    left = survival(mark, inputs, labels, how)
    assert left.of == 60
    assert left.left >= (20 if how == "half" else 50)
    # An ideal suspect has them all right, but for the rare picture that cleaning makes look like another.
    assert left.log10_p <= left.left * math.log10(0.5) * 0.8
    assert left.log10_p <= -5


def test_an_unmarked_set_supports_no_claim(rival, patches, relabelled):
    stranger, _ = publish(rival, twin_labels(patches[1]), *patches)
    for how in ("jpeg", "half"):
        assert survival(relabelled[0], *patches, how).log10_p > -2
        assert survival(stranger, *relabelled[1], how).log10_p > -2


@pytest.mark.parametrize("how", ["resize", "half"])
def test_a_model_trained_after_cleaning_is_asked(patches, relabelled, how):
    def memorise(inputs, labels):
        model = KNeighborsClassifier(1).fit(inputs.reshape(len(inputs), -1), labels)
        return lambda asked: model.predict(asked.reshape(len(asked), -1))

    mark, copy = relabelled
    verdict = retrained(mark, *copy, how, train=memorise)
    assert verdict.p_is == "exact"
    assert verdict.log10_p < -4
    assert retrained(mark, *patches, how, train=memorise).log10_p > -2


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["A b", "B c", "C d", "a b"]), min_size=1), st.sampled_from(sorted(CLEANINGS)))
def test_labels_stay_with_their_inputs(texts, how):
    labels = [zlib.crc32(text.encode()) % 1000 for text in texts]
    if how in ("jpeg", "resize"):
        with pytest.raises(InputError, match="uint8"):
            cleaned(texts, labels, how)
        return
    left, kept = cleaned(texts, labels, how)
    origin = {text.lower() if how == "lower" else text: set() for text in texts}
    for text, label in zip(texts, labels, strict=True):
        origin[text.lower() if how == "lower" else text].add(label)
    assert all(label in origin[text] for text, label in zip(left, kept.tolist(), strict=True))
    assert len(left) == {"dedup": len(set(texts)), "half": len(texts) // 2}.get(how, len(texts))


def test_pictures_keep_their_form(patches):
    images, labels = patches
    for inputs in (images, images[..., 0], [Image.fromarray(image) for image in images[:9]]):
        for how in ("jpeg", "resize"):
            left, _ = cleaned(inputs, labels[: len(inputs)], how)
            assert type(left[0]) is type(inputs[0]) or isinstance(left[0], Image.Image)
            one, other = np.asarray(inputs[0], float), np.asarray(left[0], float)
            assert one.shape == other.shape
            assert 0 < np.abs(one - other).mean() < 40


def test_what_cannot_be_cleaned_is_refused(patches):
    with pytest.raises(InputError, match="choose dedup, jpeg"):
        cleaned(*patches, "wash")
    with pytest.raises(InputError, match="only texts"):
        cleaned(*patches, "lower")
    with pytest.raises(InputError, match="3 labels for 160 inputs"):
        cleaned(patches[0], [0, 1, 2], "half")
