"""The scheme keeps the contract, for floats and for integers."""

import numpy as np
import pytest
from wmplug_example.table import Table

from wmplug import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Task
from wmplug.testing import SchemeContract


def rows(dtype=np.float64):
    return (np.random.default_rng(0).normal(50, 20, (200, 7))).astype(dtype)


class TestTable(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Table()

    @pytest.fixture
    def task(self):
        return Task(rows(), "array", None, classes=4, triggers=30)


class TestTableOfIntegers(SchemeContract):
    @pytest.fixture
    def scheme(self):
        return Table(tail=0.1)

    @pytest.fixture
    def task(self):
        return Task(rows(np.int32), "array", None, classes=4, triggers=30)


def test_rows_lie_within_the_carriers():
    plan = Table().plan(Task(rows(), "array", None, 4, 500), KeyStream(bytes(32)))
    assert (plan.inputs >= rows().min(axis=0)).all()
    assert (plan.inputs <= rows().max(axis=0)).all()
    assert (plan.inputs.std(axis=0) > 0.5 * rows().std(axis=0)).all()


@pytest.mark.parametrize(("carriers", "tail"), [(np.zeros((5, 2, 2)), 0.1), (np.zeros((5, 2)), 0.5)])
def test_what_is_no_table_is_refused(carriers, tail):
    with pytest.raises(InputError, match=r"rows \(n, d\)"):
        Table(tail=tail).plan(Task(carriers, "array", None, 4, 5), KeyStream(bytes(32)))
