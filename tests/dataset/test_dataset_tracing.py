import dataclasses

import numpy as np
import pytest
from scipy.stats import binomtest, kstest
from sklearn.ensemble import RandomForestClassifier

from wmplug import dataset
from wmplug.dataset.tracing import trace
from wmplug.errors import InputError, SuspectError
from wmplug.keys.streams import KeyStream, derive
from wmplug.statistics.draws import DrawResult, log10_p
from wmplug.watermark.plan import draw_symbols

LICENSEES = ["Anna", "Ben", "Carla", "Dora", "Emil"]


@pytest.fixture(scope="module")
def table(digits):
    images, labels = digits
    return images.reshape(len(images), -1)[:500], labels[:500]


@pytest.fixture(scope="module")
def marked(table, owner):
    return dataset.mark(table, owner, share=0.3, copies=LICENSEES)


def trained(inputs, labels):
    return RandomForestClassifier(60, random_state=0, bootstrap=False).fit(inputs, labels).predict_proba


def test_the_copy_that_leaked_is_named_and_no_other(marked, table):
    leaked = trained(*marked.written["Carla"].data)
    found = trace(marked.marks, leaked)
    assert found.accused == ("Carla",)
    assert found.copies[0].log10_p < -10
    assert "trained on the copy of Carla" in str(found)
    assert trace(marked.marks, trained(*table)).accused == ()


def as_it_is(row, answer):
    return row, answer


def test_what_nothing_binds_is_named_with_the_copy(marked):
    marks = {name: dataclasses.replace(mark, preprocess=as_it_is) for name, mark in marked.marks.items()}
    leaked = trained(*marked.written["Carla"].data)
    found = trace(marks, leaked)
    assert str(found).endswith("over 5 copies; key NOT ATTESTED; answers AS GIVEN; preprocess NOT COMMITTED")
    assert [choice["what"] for choice in found.to_json()["choices"]] == ["answers", "preprocess"]
    assert "AS GIVEN" not in str(trace(marked.marks, leaked))


def test_copies_differ_in_labels_alone(marked):
    inputs = [marked.written[name].data[0] for name in LICENSEES]
    labels = [marked.written[name].data[1] for name in LICENSEES]
    assert all(np.array_equal(one, inputs[0]) for one in inputs)
    for i, one in enumerate(labels):
        assert all((one != other).sum() > 20 for other in labels[:i])
    assert len({mark.id for mark in marked.marks.values()}) == len(LICENSEES)


def test_each_question_is_put_once(marked):
    asked = []

    def suspect(rows):
        asked.extend(row.tobytes() for row in rows)
        return np.zeros(len(rows), np.int64)

    found = trace(marked.marks, suspect, batch_size=32)
    assert len(asked) == len(set(asked)) == found.queries == len(marked.marks["Anna"].triggers)


def test_two_who_mix_their_copies_are_both_named(marked):
    one, two = (marked.written[name].data for name in ("Anna", "Emil"))
    first = np.random.default_rng(0).random(len(one[1])) < 0.5
    mixed = trained(one[0], np.where(first, one[1], two[1]))
    assert set(trace(marked.marks, mixed).accused) == {"Anna", "Emil"}


def test_hardly_anybody_is_accused_falsely(marked, table):
    """Over 400 redrawn copies, on the answers of a model of the unmarked set and of one of another's copy."""
    plan = marked.marks["Anna"].triggers.plan
    for who, suspect in (("none", trained(*table)), ("Ben", trained(*marked.written["Ben"].data))):
        answers, found = suspect(plan.inputs).argmax(axis=1), []
        for key in range(400):
            drawn = draw_symbols(KeyStream(derive(bytes(32), f"{who}/{key}")), plan.options)
            told = zip(drawn, plan.options, answers, strict=True)
            found.append(log10_p([DrawResult(int(s), tuple(int(c == a) for c in pair)) for s, pair, a in told]))
        assert binomtest(int((np.array(found) <= -2).sum()), 400, 0.01, alternative="greater").pvalue > 1e-3
        assert kstest(10 ** np.array(found), "uniform", alternative="greater").pvalue > 1e-3


def test_what_does_not_fit_is_refused(marked):
    with pytest.raises(InputError, match="by name"):
        trace({}, lambda rows: rows)
    with pytest.raises(InputError, match="not an error rate"):
        trace(marked.marks, lambda rows: np.zeros(len(rows), np.int64), alpha=2)

    class Short:
        description = "short"

        def answer(self, inputs):
            return np.zeros(len(inputs) - 1, np.int64)

    with pytest.raises(SuspectError, match="one answer for each"):
        trace(marked.marks, Short())
