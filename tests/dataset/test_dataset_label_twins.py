import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binomtest, kstest

from wmplug import create, verify
from wmplug.dataset.records import Record
from wmplug.dataset.schemes import Sample
from wmplug.dataset.schemes.label_twins import LabelTwins
from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream, derive
from wmplug.schemes.tilt.references import References
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.suspects.functions import CallableSuspect
from wmplug.watermark.plan import draw_symbols

COUNT, CLASSES = 400, 5


@pytest.fixture(scope="module")
def pictures():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 6, 6), dtype=np.uint8)


@pytest.fixture(scope="module")
def pool():
    """What references say."""
    return np.random.default_rng(1).dirichlet(np.ones(CLASSES), COUNT).astype(np.float32)


@pytest.fixture(scope="module")
def labels(pool):
    """Mostly the likeliest; every fifth the least likely."""
    order = np.argsort(pool, axis=1)
    return np.where(np.arange(COUNT) % 5 == 0, order[:, 0], order[:, -1])


@pytest.fixture(scope="module")
def mark(owner, pictures, labels, pool):
    scheme = LabelTwins(pool=pool)
    return create(owner, scheme=scheme, carriers=pictures, labels=labels, classes=CLASSES, triggers=120)


def published(mark, pictures, labels):
    records = [
        Record(i, f"record {i}", one, int(label)) for i, (one, label) in enumerate(zip(pictures, labels, strict=True))
    ]
    return mark.scheme.changes(mark.triggers, records, len(records)).labels


def answering(pictures, labels):
    """A suspect that knows these labels by heart."""
    known = {one.tobytes(): int(label) for one, label in zip(pictures, labels, strict=True)}
    return CallableSuspect(lambda asked: np.array([known[one.tobytes()] for one in asked]))


def seen(pictures, labels, pool):
    sample = Sample(pictures, labels, CLASSES)
    sample.__dict__["said"] = References(pool, pool)
    return sample


def test_a_model_that_learned_the_published_labels_is_proven(mark, rival, pictures, labels, pool):
    learned = labels.copy()
    for index, label in published(mark, pictures, labels).items():
        learned[index] = label
    verdict = verify(mark, answering(pictures, learned), exhaustive=True)
    assert (verdict.matches, verdict.in_set) == (120, 120)
    assert verdict.log10_p == pytest.approx(120 * np.log10(0.5) + np.log10(verdict.tries))
    assert verify(mark, answering(pictures, labels), exhaustive=True).log10_p > -2.5
    wrong = create(rival, scheme=LabelTwins(pool=pool), carriers=pictures, labels=labels, classes=CLASSES, triggers=120)
    assert verify(wrong, answering(pictures, learned), exhaustive=True).log10_p > -2.5


def test_only_records_change_whose_label_is_one_of_the_two(mark, pictures, labels, pool):
    best = np.argsort(pool, axis=1)[:, -2:]
    changed = published(mark, pictures, labels)
    assert 30 < len(changed) < 90  # a coin decides over 120
    for index, label in changed.items():
        assert {label, labels[index]} == set(best[index].tolist())


def test_the_most_isolated_of_the_ambiguous_are_chosen(labels, pool, pictures):
    rows, scheme = LabelTwins().chosen(seen(pictures, labels, pool), 50)
    best = np.sort(pool, axis=1)
    fit = (np.argsort(pool, axis=1)[:, -2:] == labels[:, None]).any(axis=1) & (best[:, -1] - best[:, -2] < 0.3)
    flat = pictures.reshape(COUNT, -1).astype(float)
    nearest = np.sort(cdist(flat, flat), axis=1)[:, 1]
    assert len(rows) == 50 < fit.sum()
    assert fit[rows].all()
    assert nearest[rows].min() >= np.sort(nearest[fit])[-51]
    assert np.array_equal(scheme.pool, pool[rows])


def test_where_few_are_ambiguous_the_next_in_doubt_follow(labels, pool, pictures):
    best = np.sort(pool, axis=1)
    rows, _ = LabelTwins().chosen(seen(pictures, labels, pool), 250)
    gap, fit = best[:, -1] - best[:, -2], (np.argsort(pool, axis=1)[:, -2:] == labels[:, None]).any(axis=1)
    assert (gap[fit] < 0.3).sum() < len(rows) == 250
    assert sorted(gap[rows]) == sorted(gap[fit])[:250]


def test_a_column_is_measured_in_its_own_unit(labels, pool):
    table = np.random.default_rng(2).normal(size=(COUNT, 3))
    scaled = table * [1, 1000, 1e-3]
    chosen = [LabelTwins().chosen(seen(rows, labels, pool), 40)[0] for rows in (table, scaled)]
    assert np.array_equal(*chosen)


def test_labels_that_references_find_unlikely_are_refused(labels, pool, pictures):
    odd = seen(pictures, np.argsort(pool, axis=1)[:, 0], pool)
    with pytest.raises(InputError, match="has its label among the two"):
        LabelTwins().chosen(odd, 50)


@pytest.mark.parametrize("zero", [0, np.float32(0.0), np.float32(-0.0)], ids=["whole", "zero", "minus zero"])
def test_an_input_that_is_there_twice_keeps_its_labels(labels, pool, pictures, owner, zero):
    """Minus zero is zero to a model."""
    twice = pictures.astype(np.asarray(zero).dtype) if isinstance(zero, np.float32) else pictures.copy()
    twice[300:] = twice[:100]
    twice[300:][twice[300:] == 0] = zero
    rows, _ = LabelTwins().chosen(seen(twice, labels, pool), COUNT)
    assert 100 <= rows.min() <= rows.max() < 300
    made = create(owner, scheme=LabelTwins(pool=pool), carriers=twice, labels=labels, classes=CLASSES, triggers=150)
    assert set(published(made, twice, labels)) <= set(range(100, 300))
    with pytest.raises(InputError, match="records occur twice"):
        LabelTwins().chosen(seen(np.concatenate([pictures[:200]] * 2), labels, pool), 50)


def test_texts(owner, labels, pool):
    texts = [f"one two three number{i // 2}" for i in range(COUNT)]
    texts[:20] = [f"word{i} alone{i}" for i in range(20)]
    pool = pool.copy()
    pool[:20] = (np.eye(CLASSES)[labels[:20]] + np.eye(CLASSES)[(labels[:20] + 1) % CLASSES]) / 2
    made = create(
        owner,
        scheme=LabelTwins(pool=pool),
        carriers=texts,
        labels=labels,
        classes=CLASSES,
        triggers=10,
        allow_weak=True,
    )
    plan = made.triggers.plan
    assert plan.inputs == [texts[row] for row in plan.material["record"]]
    assert all("alone" in text for text in plan.inputs)
    assert {len(candidates) for candidates in plan.options} == {2}


@pytest.mark.parametrize("nasty", ["constant", "first", "bit", "natural"])
def test_p_is_uniform_over_keys(mark, nasty, labels):
    """Over 400 label keys, of answers that no key had a part in."""
    plan = mark.triggers.plan
    answers = {
        "constant": np.zeros(120, np.int64),
        "first": np.array([options[0] for options in plan.options]),
        "bit": np.array([options[int(one[0, 0]) % 2] for options, one in zip(plan.options, plan.inputs, strict=True)]),
        "natural": labels[plan.material["record"]],
    }[nasty]
    found = []
    for key in range(400):
        drawn = draw_symbols(KeyStream(derive(bytes(32), f"{nasty}/{key}")), plan.options)
        told = zip(drawn, plan.options, answers, strict=True)
        found.append(10 ** log10_p([DrawResult(int(s), tuple(int(c == a) for c in options)) for s, options, a in told]))
    assert kstest(found, "uniform", alternative="greater").pvalue > 1e-3
    assert binomtest(int((np.array(found) <= 0.01).sum()), 400, 0.01, alternative="greater").pvalue > 1e-3


def test_a_pool_of_another_shape_is_refused(owner, pictures, labels, pool):
    task = {"carriers": pictures, "labels": labels, "classes": CLASSES, "triggers": 10}
    with pytest.raises(InputError, match=r"pool= has shape \(399, 5\)"):
        create(owner, scheme=LabelTwins(pool=pool[:-1]), **task)
    with pytest.raises(InputError, match="needs labels="):
        create(owner, scheme=LabelTwins(pool=pool), **{**task, "labels": None})
