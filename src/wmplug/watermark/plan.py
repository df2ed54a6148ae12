"""Trigger sets: what is put into training, what is asked of a suspect, and the secret answers.

A scheme makes a `TriggerPlan` from the input key alone. The answers are drawn here, by the label key, from the
candidates the plan fixed before: a scheme cannot make them depend on anything, which is what the null rests on.

A draw is either an answer to inputs of its own (`asked`), or a sign: one bit of a pattern on which the answers to many
ordinary inputs (`weighed`) bear together.
"""

import hashlib
import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import rfc8785

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.keys.owner import KeyStream
from wmplug.statistics.draws import DrawResult
from wmplug.suspects.functions import to_numpy

Form = Literal["array", "pil", "text"]
IntArray: TypeAlias = npt.NDArray[np.int64]
Inputs: TypeAlias = npt.NDArray[Any] | list[str]
SIGN = (0, 1)  # candidates of a sign: minus and plus


@dataclass(frozen=True, eq=False)
class TriggerPlan:
    """Triggers without their answers: what a scheme returns.

    Attributes:
        inputs: N rows, an array (N, ...) or N strings, in the space of the carriers.
        draw: (N,) which draw a row belongs to; -1 for a negative, which keeps its natural label.
        labels: (N,) natural label of a negative; not read elsewhere.
        candidates: for every draw the classes its answer may be, fixed before the draw.
        asked: rows a suspect is asked, in order; rows of one draw are neighbours.
        taught: rows that are put into training; one that is listed twice comes twice as often.
        weighed: ordinary rows, of no draw, whose answers the scheme weighs together; the first ones say most.
        signs: the last so many draws are signs, of two candidates each, which no row is asked for.
        material: what the scheme made from the input key beside inputs, for its `shift`, `term` and `weigh`; secret.
    """

    inputs: Inputs = field(repr=False)
    draw: IntArray = field(repr=False)
    labels: IntArray = field(repr=False)
    candidates: tuple[tuple[int, ...], ...] = field(repr=False)
    asked: IntArray = field(repr=False)
    taught: IntArray = field(repr=False)
    weighed: IntArray = field(repr=False, default_factory=lambda: np.zeros(0, np.int64))
    signs: int = 0
    material: Mapping[str, npt.NDArray[Any]] = field(repr=False, default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.inputs)
        if not count == len(self.draw) == len(self.labels):
            raise InputError("a trigger plan needs one draw and one label for each of its inputs")
        parts = (self.asked, self.taught, self.weighed)
        if any(len(rows) and not 0 <= rows.min() <= rows.max() < count for rows in parts):
            raise InputError(f"a trigger plan may only ask and teach rows 0 to {count - 1}, its own")
        if self.draw.max() >= len(self.candidates) - self.signs:
            raise InputError(f"a row of the trigger plan belongs to draw {self.draw.max()}, which has no candidates")
        self._check_signs()
        owners = self.draw[self.asked]
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        if not (len(owners) or self.signs) or (len(owners) and owners.min() < 0):
            raise InputError("a trigger plan may only ask rows that belong to one of its draws, and at least one")
        # A draw looked at in two places would be counted as two: its queries are asked, and judged, together.
        if len(set(owners[starts].tolist())) != len(starts):
            raise InputError("a trigger plan must ask the rows of one draw one after the other")
        if any(len(set(c)) != len(c) or len(c) < 2 for c in self.candidates):
            raise InputError(
                "every draw needs at least two candidates, each once: an answer without a choice proves nothing"
            )

    def _check_signs(self) -> None:
        if bool(self.signs) != bool(len(self.weighed)) or not 0 <= self.signs <= len(self.candidates):
            raise InputError(f"a trigger plan with {self.signs} signs and {len(self.weighed)} rows to weigh: give both")
        if any(tuple(c) != SIGN for c in self.candidates[len(self.candidates) - self.signs :]):
            raise InputError(f"the candidates of a sign are {SIGN}")
        if len(self.weighed) and self.draw[self.weighed].max() >= 0:
            raise InputError("a row that is weighed belongs to no draw: its answer bears on all signs")


@dataclass(frozen=True, eq=False)
class TriggerSet:
    """A plan and the answers that the label key drew for it; secret.

    Attributes:
        plan: inputs, draws and candidates.
        form: what a row is handed out as.
        symbols: (draws,) position of each secret answer among its candidates.
    """

    plan: TriggerPlan
    form: Form
    symbols: IntArray = field(repr=False)

    def __len__(self) -> int:
        """Number of queries an exhaustive verification asks."""
        return len(self.plan.asked) + len(self.plan.weighed)

    @cached_property
    def answers(self) -> IntArray:
        """(N,) label of every row: the secret answer of a trigger, the natural label of a negative."""
        secret = np.array([c[s] for c, s in zip(self.plan.candidates, self.symbols, strict=True)] + [-1])
        return np.where(self.plan.draw >= 0, secret[self.plan.draw], self.plan.labels)

    @cached_property
    def groups(self) -> list[IntArray]:
        """The asked rows, draw by draw, in the order of asking."""
        owners = self.plan.draw[self.plan.asked]
        return np.split(self.plan.asked, np.flatnonzero(np.diff(owners)) + 1) if len(owners) else []

    @property
    def signs(self) -> IntArray:
        """(signs,) -1 or +1, as the label key drew them."""
        return 2 * self.symbols[len(self.symbols) - self.plan.signs :] - 1

    @property
    def first(self) -> Any:
        """The input that a suspect is asked first."""
        return self.row(int(np.concatenate([self.plan.asked, self.plan.weighed])[0]))

    def row(self, index: int) -> Any:
        """One input as the owner gave carriers: an array, a PIL picture or a string; a copy, whatever is done to it."""
        return as_given(self.plan.inputs[index], self.form)

    def samples(self, most: int) -> list[Any]:
        """The first inputs that are taught, or else weighed or asked; to see how a model is given them."""
        plan = self.plan
        rows = next(part for part in (plan.taught, plan.weighed, plan.asked) if len(part))
        return [self.row(int(row)) for row in rows[:most]]

    def only(self, rows: Collection[int]) -> "TriggerSet":
        """The same triggers, of which the draws are asked that have all their asked rows among `rows`.

        A row is never left out alone: its answer is that of its whole draw. Rows that are weighed stay: asking them
        gives nothing away.
        """
        wanted = set(rows)
        kept = [row for group in self.groups if wanted.issuperset(group.tolist()) for row in group.tolist()]
        if not kept:
            raise InputError(f"no draw is left to ask among {len(wanted)} rows: make a watermark with more triggers")
        return replace(self, plan=replace(self.plan, asked=np.array(kept, np.int64)))

    def count(self, group: IntArray, answers: Sequence[int | None]) -> DrawResult:
        """What the answers to the rows of one draw say; None is a failed query."""
        draw = int(self.plan.draw[group[0]])
        candidates = self.plan.candidates[draw]
        counts = [0] * len(candidates)
        for answer in answers:
            if answer is not None and answer in candidates:
                counts[candidates.index(answer)] += 1
        return DrawResult(int(self.symbols[draw]), tuple(counts))

    def leaves(self, watermark: str, disclosure: KeyStream) -> list[dict[str, Any]]:
        """What the Merkle tree is over: all rows and answers; the salts keep a leaf from being guessed."""
        return [
            {
                "version": 1,
                "watermark": watermark,
                "i": i,
                "n": len(self.answers),
                "x_sha256": digest(self.plan.inputs[i]),
                "y": int(answer),
                "salt": disclosure.bytes(16).hex(),
            }
            for i, answer in enumerate(self.answers)
        ]

    def root(self, watermark: str, disclosure: KeyStream) -> str:
        """Merkle root over all leaves, in hex."""
        return merkle.root([hash_leaf(leaf) for leaf in self.leaves(watermark, disclosure)]).hex()


def hash_leaf(leaf: Mapping[str, Any]) -> bytes:
    """The leaf hash (32 bytes) of one of `TriggerSet.leaves`."""
    return merkle.leaf_hash(rfc8785.dumps(dict(leaf)))


def as_given(value: Any, form: Form) -> Any:
    """One of a set's inputs, or of a task's carriers, as its owner would hand it to a model; a copy."""
    if isinstance(value, str):
        return value
    if form == "array":
        return value.copy()
    from PIL import Image

    return Image.fromarray(value.copy())


def take(inputs: Inputs, rows: IntArray) -> Inputs:
    """Some of the inputs, in this order."""
    return [inputs[row] for row in rows.tolist()] if isinstance(inputs, list) else inputs[rows]


def join(first: Inputs, second: Inputs | None) -> Inputs:
    """Inputs of one kind, one after the other."""
    if second is None:
        return first
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    return np.concatenate([np.asarray(first), np.asarray(second)])


def draw_symbols(label: KeyStream, candidates: Sequence[Sequence[int]]) -> IntArray:
    """(draws,) one uniform position for every draw, by rejection sampling from the label key's stream."""
    return np.array([int(label.below(len(c), 1)[0]) for c in candidates], np.int64)


def digest(value: npt.NDArray[Any] | list[str] | str) -> str:
    """SHA-256 in hex of an array (dtype, shape and bytes, little-endian), a string or a list of strings."""
    if isinstance(value, str):
        return hashlib.sha256(value.encode()).hexdigest()
    if isinstance(value, list):
        return hashlib.sha256(rfc8785.dumps(list(value))).hexdigest()
    array = np.ascontiguousarray(value)
    array = array.astype(array.dtype.newbyteorder("<"))
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + b"\x00" + array.tobytes()).hexdigest()


def read_carriers(carriers: Any, what: str = "carriers") -> tuple[Inputs, Form]:
    """Carriers as one array or one list of strings.

    Args:
        carriers: an array or torch tensor (n, ...), a sequence of equally shaped ones, of PIL pictures of one size
            and mode, or of strings.
        what: how the error calls them.

    Raises:
        InputError: empty, or mixed shapes, dtypes or kinds.
    """
    if hasattr(carriers, "to_numpy"):  # a pandas Series is indexed by its labels, which a shuffle leaves in disorder
        carriers = carriers.to_numpy()
    carriers = _off_device(carriers, what)
    sequence = hasattr(carriers, "__len__") and hasattr(carriers, "__getitem__")
    if not sequence or isinstance(carriers, (str, bytes, Mapping)) or getattr(carriers, "ndim", 1) == 0:
        raise InputError(f"{what} are a {type(carriers).__name__}: give a list or an array of inputs")
    if len(carriers) == 0:
        raise InputError(f"there are no {what}: give inputs such as the model is trained on")
    if isinstance(carriers, np.ndarray) and carriers.dtype.kind not in "UO":
        return _checked(carriers, what), "array"
    rows = [_off_device(carriers[i], what) for i in range(len(carriers))]
    if all(isinstance(row, str) for row in rows):
        return [_encodable(str(row), what) for row in rows], "text"
    return _stack(rows, what)


def _off_device(value: Any, what: str) -> Any:
    """A torch tensor as an array; anything else as it is."""
    if not hasattr(value, "detach"):
        return value
    try:
        return to_numpy(value)
    except (TypeError, RuntimeError) as error:
        raise InputError(f"{what} are tensors that cannot be read as arrays ({error}): give dense ones") from error


def _stack(rows: list[Any], what: str) -> tuple[Inputs, Form]:
    try:
        arrays = [np.asarray(row) for row in rows]
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} cannot be read as arrays ({error}): give inputs alone, without labels") from error
    modes = [getattr(row, "mode", None) for row in rows]
    kinds = {(a.shape, str(a.dtype), mode) for a, mode in zip(arrays, modes, strict=True)}
    if len(kinds) > 1:
        some = ", ".join(sorted(f"{shape} {dtype}{f' {mode}' * bool(mode)}" for shape, dtype, mode in kinds)[:4])
        raise InputError(
            f"{what} differ in shape, dtype or kind ({some}): bring them to one, and let preprocess= do the rest"
        )
    stacked = _checked(np.stack(arrays), what)
    if modes[0] is None:
        return stacked, "array"
    from PIL import Image

    if Image.fromarray(stacked[0]).mode != modes[0]:
        raise InputError(f"{what} are pictures of mode {modes[0]!r}: convert them, for example with .convert('RGB')")
    return stacked, "pil"


def _checked(array: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    if array.dtype.kind not in "uif":
        raise InputError(f"{what} have dtype {array.dtype}: give numbers, strings or PIL pictures")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{what} hold NaN or infinity: remove those rows")
    return array


def _encodable(text: str, what: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{what} hold a text that is no Unicode ({error.reason}): remove or repair it") from None
    return text


def read_labels(labels: Any, count: int, classes: int) -> IntArray | None:
    """Class labels as (n,) int64, or None.

    Raises:
        InputError: soft or multi-label targets, another length, or labels outside range(classes).
    """
    if labels is None:
        return None
    if isinstance(labels, (list, tuple)):
        labels = [_off_device(label, "labels") for label in labels]
    try:
        array = np.asarray(_off_device(labels, "labels"))
    except (ValueError, TypeError) as error:
        raise InputError(f"labels cannot be read ({error}): give one integer class for each carrier") from error
    if array.ndim == 1 and array.dtype.kind == "f":
        raise InputError(f"labels have dtype {array.dtype}, classes are whole numbers: give labels.astype(int)")
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}: one integer class for each carrier is needed "
            "(soft targets and several labels an input are not supported yet)"
        )
    if len(array) != count:
        raise InputError(f"{len(array)} labels for {count} carriers: give one for each")
    if array.min() < 0 or array.max() >= classes:
        raise InputError(f"labels run from {array.min()} to {array.max()}, classes={classes} allows 0 to {classes - 1}")
    return array.astype(np.int64)


def read_whole(value: Any, name: str, least: int, most: int, need: str) -> int:
    """A whole number from `least` to `most`; numpy's count, True does not.

    Raises:
        InputError: anything else; the message ends with `need`.
    """
    try:
        whole = operator.index(value)
    except TypeError:
        raise InputError(f"{name}={value!r} is a {type(value).__name__}, not a whole number: {need}") from None
    if not least <= whole <= most or isinstance(value, bool):
        raise InputError(f"{name}={value!r}: {need}")
    return whole
