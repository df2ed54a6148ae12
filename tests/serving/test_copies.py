"""Near copies of a decided query are told the same."""

import numpy as np
import pytest
from served_digits import marked, told_by

from wmplug.errors import ServingError, ServingWarning
from wmplug.keys.streams import KeyStream
from wmplug.schemes.cells import around
from wmplug.serving import Log, Serving
from wmplug.serving.copies import Copies

GAP = 0.3


@pytest.fixture(scope="module")
def story(digits):
    return told_by(digits)


@pytest.fixture(scope="module")
def mark(story):
    return marked(story, "copies", personal=0.5)


@pytest.fixture
def log(mark, tmp_path):
    return Log(tmp_path / "log.db", mark)


def decided_rows(story):
    best = np.sort(story.scores(story.asked), axis=1)
    return np.flatnonzero(best[:, -1] - best[:, -2] < GAP)


def noisy(images, seed):
    drawn = np.random.default_rng(seed).normal(0, 10, images.shape)
    return np.clip(images + drawn, 0, 255).round().astype(images.dtype)


def majority(serving, images, customer=""):
    votes = np.zeros((len(images), 10))
    for seed in range(9):
        votes[np.arange(len(images)), serving.answer(noisy(images, seed), customer).argmax(axis=1)] += 1
    return votes.argmax(axis=1)


def test_a_majority_over_noisy_copies_hears_what_the_first_asking_heard(story, mark):
    images = story.asked[decided_rows(story)]
    forgetful, serving = (Serving(mark, story.scores, gap=GAP, remember=n) for n in (0, 4096))
    first = serving.answer(images).argmax(axis=1)
    np.testing.assert_array_equal(forgetful.answer(images).argmax(axis=1), first)
    assert (majority(forgetful, images) != first).sum() > 5
    assert (majority(serving, images) != first).sum() == 0


def test_copies_in_one_batch_are_told_alike(story, mark):
    images = story.asked[decided_rows(story)[:20]]
    batch = np.concatenate([images, *(noisy(images, seed) for seed in range(9))])
    told = Serving(mark, story.scores, gap=GAP).answer(batch).argmax(axis=1).reshape(10, 20)
    assert (told == told[0]).mean() > 0.99


def test_other_pictures_are_no_copies(story, mark):
    one, all_of_them = (Serving(mark, story.scores, gap=GAP, remember=n) for n in (0, 4096))
    same = one.answer(story.asked) == all_of_them.answer(story.asked)
    assert same.all()


def test_a_copy_is_not_logged_again_but_for_another_customer(story, mark, log):
    images = story.asked[decided_rows(story)]
    serving = Serving(mark, story.scores, log, gap=GAP)
    serving.answer(images, "acme")
    for _ in range(2):
        serving.answer(noisy(images, 0), "acme")
    once = log.decided()
    assert len(once) == len(images)
    told = serving.answer(images, "bolt")
    both = log.decided()
    assert set(both.digests) == set(once.digests)
    assert both.customers == ("acme",) * len(images) + ("bolt",) * len(images)
    alone = Serving(mark, story.scores, gap=GAP, remember=0)
    np.testing.assert_array_equal(told, alone.answer(images, "bolt"))
    assert (told != alone.answer(images, "acme")).any()  # in cells with coins of a customer's own


def test_what_could_not_be_logged_is_logged_when_it_is_asked_again(story, mark, log):
    class Full:
        watermark = mark.id

        def add(self, decided, model=""):
            raise ServingError("the disk is full")

    images = story.asked[decided_rows(story)]
    serving = Serving(mark, story.scores, log, gap=GAP)
    object.__setattr__(serving, "log", Full())
    with pytest.warns(ServingWarning, match="UNMARKED"):
        np.testing.assert_array_equal(serving.answer(images), story.scores(images))
    object.__setattr__(serving, "log", log)
    serving.answer(images)
    assert len(log.decided()) == len(images)


def test_a_remembered_pair_needs_to_be_likely_for_the_copy(story, mark):
    image, pair = story.asked[:1], np.array([[3, 7]])
    sure, copies = np.full((1, 10), 0.01), Copies(story.asked, mark.triggers.plan.material, 10)
    sure[0, 5] = 0.91
    doubt = np.full((1, 10), 0.1)
    assert len(copies.resolve(image, pair, np.array([True]), doubt, 0.5)) == 1
    assert len(copies.resolve(image, pair, np.array([False]), doubt, 0.5)) == 1
    assert copies.resolve(image, pair, np.array([False]), sure, 0.5) == []


def test_the_oldest_are_forgotten(story, mark):
    copies, doubt = Copies(story.asked, mark.triggers.plan.material, 3), np.full((1, 10), 0.1)
    for row in range(4):
        copies.resolve(story.asked[row : row + 1], np.array([[0, 1]]), np.array([True]), doubt, 0.5)
    again = [
        copies.resolve(story.asked[row : row + 1], np.array([[0, 1]]), np.array([False]), doubt, 0.5)
        for row in range(4)
    ]
    assert [len(one) for one in again] == [0, 1, 1, 1]


def test_a_text_that_lacks_one_word_is_a_copy(topics):
    texts, _ = topics
    long = [" ".join(texts[i : i + 6]) for i in range(0, 600, 6)]
    copies = Copies(long, around(long, 20, KeyStream(bytes(32))), 100)
    doubt, pair = np.full((1, 4), 0.25), np.array([[1, 2]])
    copies.resolve(long[:1], pair, np.array([True]), doubt, 0.5)
    shorter, other = long[0].rpartition(" ")[0], long[1]
    assert len(copies.resolve([shorter], pair, np.array([False]), doubt, 0.5)) == 1
    assert copies.resolve([other], pair, np.array([False]), doubt, 0.5) == []
