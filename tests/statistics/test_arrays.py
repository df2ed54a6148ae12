"""Values of frameworks as arrays, and whole numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wmplug.errors import InputError
from wmplug.statistics.arrays import off_device, read_whole, to_numpy


class Tensor:
    """What a tensor of torch does: it is an array only off its graph and its device, and never as bfloat16."""

    def __init__(self, values: list[float], where: str = "graph, device", dtype: str = "float32") -> None:
        self.values, self.where, self.dtype = values, where, dtype

    def detach(self) -> Tensor:
        return Tensor(self.values, self.where.removeprefix("graph, "), self.dtype)

    def cpu(self) -> Tensor:
        return Tensor(self.values, self.where.removesuffix("device"), self.dtype)

    def float(self) -> Tensor:
        return Tensor(self.values, self.where, "float32")

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        if self.where:
            raise RuntimeError(f"it is on {self.where}")
        if self.dtype != "float32":
            raise TypeError(f"no array has {self.dtype}")
        return np.array(self.values, np.float32)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tensor_becomes_an_array(dtype: str) -> None:
    for read in (to_numpy, lambda tensor: off_device(tensor, "answers")):
        array = read(Tensor([1.0, 2.5], dtype=dtype))
        assert type(array) is np.ndarray
        assert array.tolist() == [1.0, 2.5]


def test_anything_else_becomes_an_array_or_stays() -> None:
    assert to_numpy([1, 2]).tolist() == [1, 2]
    value = [1, 2]
    assert off_device(value, "answers") is value


@pytest.mark.parametrize("error", [TypeError, RuntimeError])
def test_a_tensor_that_is_not_dense_is_refused_by_name(error: type[Exception]) -> None:
    class Sparse(Tensor):
        def detach(self) -> Tensor:
            raise error("sparse layout")

    with pytest.raises(InputError, match=r"^answers are tensors that .* \(sparse layout\): give dense ones$"):
        off_device(Sparse([]), "answers")


@given(st.integers(-3, 8))
def test_a_whole_number_lies_between_both_ends(number: int) -> None:
    for value in (number, np.int32(number)):
        if 1 <= number <= 5:
            whole = read_whole(value, "n", 1, 5, "give 1 to 5")
            assert (whole, type(whole)) == (number, int)
        else:
            with pytest.raises(InputError, match=r"^n=.*: give 1 to 5$"):
                read_whole(value, "n", 1, 5, "give 1 to 5")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2.0, r"^n=2\.0 is a float, not a whole number: give 1 to 5$"),
        ("2", r"^n='2' is a str, not a whole number: give 1 to 5$"),
        (None, r"^n=None is a NoneType, not a whole number: give 1 to 5$"),
        (True, r"^n=True: give 1 to 5$"),
    ],
)
def test_what_is_no_whole_number_is_refused(value: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_whole(value, "n", 1, 5, "give 1 to 5")
