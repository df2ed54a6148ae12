"""Key-free features of texts, looked up from the token ids that a model is given, and texts between two texts.

Latent semantic analysis (Deerwester et al. 1990) of the owner's texts as his tokenizer reads them: a text is the mean
of its tokens' vectors, weighted by inverse document frequency. Tokens of no text, such as padding, and tokens of most
texts weigh nothing, so that a batch needs no mask.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.sparse.linalg import svds

from wmplug.errors import InjectionError, InputError
from wmplug.keys.streams import KeyStream
from wmplug.statistics.arrays import FloatArray, IntArray, to_numpy

LABELS = ("labels", "label")
INPUTS = ("input_ids", "token_ids", "pixel_values", "input_values", "input_features", "x")
COMPONENTS = 64
_MASKS = ("attention_mask", "padding_mask")
_EMPTY = 1e-6  # weight added to that of a text, so that one without a known token is in the middle
_KNOWN = 0.5  # share of tokens that a text has to have in common with the owner's, to be read by his tokenizer


def ids_of(texts: Sequence[str], prepare: Callable[[Any, int], Any] | None) -> list[IntArray]:
    """The token ids of each text as the model is given them, without padding.

    Args:
        texts: n of them.
        prepare: the watermark's `preprocess`.

    Raises:
        InputError: it is missing, or makes no token ids.
    """
    if prepare is None:
        raise InputError(
            "tilt reads texts as the model does: give preprocess=, a function from (text, answer) to what the dataset "
            "yields, for example lambda text, answer: {**tokenizer(text, truncation=True), 'label': answer}"
        )
    read = [_ids(prepare(text, 0)) for text in texts]
    # Rows of one length are padded, most likely; a tokenizer's own say is better.
    same = len({len(ids) for ids, _ in read}) == 1
    return [ids[mask] if mask is not None else _unpadded(ids) if same else ids for ids, mask in read]


def given(example: Any) -> Any:
    """The input of one example as a dataset yields it: by name where parts have names, else the first of (x, y)."""
    example = _inputs(example)
    if not isinstance(example, Mapping):
        return example
    name = next((n for n in (*INPUTS, *example) if n in example and n not in LABELS), None)
    return None if name is None else example[name]


def _inputs(example: Any) -> Any:
    pair = isinstance(example, (tuple, list)) and len(example) == 2 and np.ndim(example[1]) == 0
    return example[0] if pair and (isinstance(example[0], Mapping) or np.ndim(example[0]) > 0) else example


def _ids(example: Any) -> tuple[IntArray, npt.NDArray[np.bool_] | None]:
    ids = to_numpy(given(example))
    if ids.size == 0 or ids.dtype.kind not in "iu" or ids.ndim > 2 or (ids.ndim == 2 and len(ids) > 1):
        raise InputError(
            f"preprocess= made {ids.shape} {ids.dtype} of a text, token ids (length,) are needed: let it call the "
            "tokenizer, or give features= and a preprocess= that makes what this function reads"
        )
    parts = _inputs(example)
    mask = next((parts[name] for name in _MASKS if name in parts), None) if isinstance(parts, Mapping) else None
    return ids.reshape(-1).astype(np.int64), None if mask is None else to_numpy(mask).reshape(-1) > 0


def _unpadded(ids: IntArray) -> IntArray:
    """Without a token that is repeated at an end, the one at which it is repeated more."""
    changes = np.flatnonzero(np.diff(ids))
    if not len(changes):
        return ids[:1]
    first, last = changes[0] + 1, len(ids) - 1 - changes[-1]
    if max(first, last) < 2:
        return ids
    return ids[first:] if first > last else ids[: len(ids) - last]


def padded(rows: Sequence[IntArray]) -> IntArray:
    """(n, length) token ids; -1 where a text has ended, which is no token."""
    ids = np.full((len(rows), max(map(len, rows))), -1)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = row
    return ids


def vectors(rows: Sequence[IntArray]) -> npt.NDArray[np.float32]:
    """(2 + tokens, 1 + components) table: before the tokens by their ids, and after them, a row for an unknown token.

    The last column is a token's weight, the others its vector times the weight.

    Args:
        rows: token ids of the owner's texts.

    Raises:
        InputError: the texts have hardly a token in common.
    """
    size = 1 + max(int(row.max()) for row in rows)
    counts = _bags(rows, size)
    frequency = np.bincount(counts.indices, minlength=size)
    common = (frequency > 1) & (frequency <= len(rows) / 2)
    weight = np.where(common, np.log(len(rows) / np.maximum(frequency, 1)), 0.0)
    weighed = counts * weight
    total = np.asarray(weighed.sum(axis=1)).ravel() + _EMPTY
    k = min(COMPONENTS, len(rows) - 1, int(common.sum()) - 1)
    if k < 2:
        raise InputError(
            f"{len(rows)} texts share {int(common.sum())} tokens, too few to tell texts apart by: give more carriers, "
            "or features=, a function from a batch of token ids to (B, d)"
        )
    means = csr_array(weighed * (1 / total)[:, None])
    _, sizes, axes = svds(means, k=k, v0=np.ones(min(means.shape)))
    table = np.zeros((size + 2, k + 1), np.float32)
    table[1:-1] = np.column_stack([axes[np.argsort(-sizes)].T * weight[:, None], weight])
    return table


def _bags(rows: Sequence[IntArray], size: int) -> Any:
    bounds = np.cumsum([0, *map(len, rows)])
    found = csr_array((np.ones(bounds[-1]), np.concatenate(rows), bounds), shape=(len(rows), size))
    found.sum_duplicates()
    return found


def of_rows(rows: Sequence[IntArray], table: npt.NDArray[np.float32]) -> FloatArray:
    """(n, components) features of texts, whose token ids may be unknown to the table."""
    known = [np.clip(row + 1, 0, len(table) - 1) for row in rows]
    found = np.asarray(_bags(known, len(table)) @ table.astype(np.float64))
    return np.asarray(found[:, :-1] / (found[:, -1:] + _EMPTY), np.float64)


def constants(table: npt.NDArray[np.float32], seen: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """What `of_ids` needs.

    Args:
        table: of `vectors`.
        seen: (k, length) token ids of some texts, as the model is given them.

    Raises:
        InjectionError: these are no token ids, or another tokenizer's.
    """
    if seen.ndim != 2 or seen.dtype.kind not in "iu":
        raise InjectionError(
            f"the model is given {seen.shape} {seen.dtype} for {len(seen)} texts, token ids (B, length) are needed: "
            "give features= that reads what the model is given"
        )
    weights = table[np.clip(seen + 1, 0, len(table) - 1), -1] > 0
    if (weights.any(axis=1)).mean() < _KNOWN:
        raise InjectionError(
            f"{weights.any(axis=1).mean():.0%} of the texts have a token that preprocess= gave when the watermark was "
            "made: train with the same tokenizer"
        )
    return {"vectors": table, "places": np.arange(table.shape[1], dtype=seen.dtype)}


def of_ids(xp: Any, ids: Any, tables: Mapping[str, Any]) -> Any:
    """(B, components) features of a batch of token ids (B, length), with the tables of `constants` as tensors."""
    table = tables["vectors"]
    size, width = table.shape
    known = xp.clip(ids + 1, 0, size - 1)
    # A flat table: the one way of indexing by whole numbers that all frameworks spell alike.
    found = xp.sum(xp.take(xp.reshape(table, (-1,)), known[..., None] * width + tables["places"]), axis=1)
    return found[:, :-1] / (found[:, -1:] + _EMPTY)


def words_read(texts: Sequence[str], tokens: Sequence[int]) -> int:
    """How many words of a text the model reads; all where its tokenizer cuts none off.

    Args:
        texts: n of them.
        tokens: (n,) how many the model is given of each.
    """
    lengths, words = np.asarray(tokens), np.array([len(text.split()) for text in texts])
    cut = lengths == lengths.max()
    # One text alone is the longest by nature.
    if cut.sum() < 2 or words.max() == 0:
        return int(words.max())
    a_word = np.median(lengths[~cut] / np.maximum(words[~cut], 1)) if (~cut).any() else lengths.max() / words.max()
    return max(2, int(lengths.max() / max(a_word, 1e-9)))


def spliced(
    texts: Sequence[str], labels: IntArray, count: int, stream: KeyStream, words: int, shares: tuple[float, float]
) -> tuple[list[str], IntArray]:
    """Texts that begin as one and end as another, each under the label of one of them, drawn in proportion.

    Args:
        texts: to choose from.
        labels: (n,) theirs.
        count: how many to make.
        stream: of the input key.
        words: that a model reads of a text; the end of the second is the end of these.
        shares: least and largest part of the first text.
    """
    one, two = stream.below(len(texts), count), stream.below(len(texts), count)
    part = shares[0] + (shares[1] - shares[0]) * stream.uniform(count)
    drawn = np.where(stream.uniform(count) < part, labels[one], labels[two])
    made = []
    for i, j, share in zip(one.tolist(), two.tolist(), part.tolist(), strict=True):
        first, second = texts[i].split()[:words], texts[j].split()[:words]
        made.append(" ".join(first[: round(share * len(first))] + second[round(share * len(second)) :]))
    return made, np.asarray(drawn, np.int64)
