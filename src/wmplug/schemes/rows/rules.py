"""Rules between the columns of a table, such as `paid <= due`: arithmetic and comparisons, and nothing else."""

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from wmplug.errors import InputError
from wmplug.statistics.arrays import Array, BoolArray

_ARITHMETIC: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_COMPARISONS: Mapping[type, Callable[[Any, Any], Any]] = {
    ast.LtE: operator.le,
    ast.Lt: operator.lt,
    ast.GtE: operator.ge,
    ast.Gt: operator.gt,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
_LONGEST = 1000  # characters of a rule
_HELP = "a rule compares sums, differences, products and quotients of columns and numbers, such as 'paid <= due'"


def kept(rule: str, rows: Array) -> BoolArray:
    """(n,) whether each row keeps a rule.

    Args:
        rule: comparisons (<=, <, >=, >, ==, !=; chains too) of arithmetic (+, -, *, /) on the columns, `x0`,
            `x1`, ... by their places, and numbers.
        rows: (n, d) numbers.

    Raises:
        InputError: the rule says anything else, or names another column.
    """
    compared = parsed(rule)
    sides = [_value(side, rule, rows) for side in (compared.left, *compared.comparators)]
    true: BoolArray = np.ones(len(rows), bool)
    for left, compare, right in zip(sides, compared.ops, sides[1:], strict=False):
        with np.errstate(invalid="ignore"):
            true &= np.broadcast_to(_COMPARISONS[type(compare)](left, right), len(rows))
    return true


def parsed(rule: str) -> ast.Compare:
    """The comparison that a rule states.

    Raises:
        InputError: it states none.
    """
    try:
        if len(rule) > _LONGEST:
            raise ValueError(f"longer than {_LONGEST} characters")
        tree = ast.parse(rule.strip(), mode="eval").body
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise InputError(f"the rule {str(rule)[:80]!r} cannot be read ({error}): {_HELP}") from None
    if not isinstance(tree, ast.Compare) or not all(type(one) in _COMPARISONS for one in tree.ops):
        raise InputError(f"the rule {rule!r} is no comparison: {_HELP}")
    return tree


def _value(node: ast.expr, rule: str, rows: Array) -> Any:
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = (_value(side, rule, rows) for side in (node.left, node.right))
        with np.errstate(all="ignore"):
            return _ARITHMETIC[type(node.op)](left, right)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_value(node.operand, rule, rows)
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return np.float64(node.value)
    if isinstance(node, ast.Name):
        places = {f"x{place}": place for place in range(rows.shape[1])}
        return rows[:, places[_known(node.id, rule, places)]].astype(np.float64)
    raise InputError(f"the rule {rule!r} holds {ast.unparse(node)!r}: {_HELP}")


def by_place(rule: str, names: Sequence[str]) -> str:
    """A rule that names columns, with `x0`, `x1`, ... in place of their names.

    Raises:
        InputError: as for `kept`.
    """
    places = {f"x{place}": place for place in range(len(names))} | {name: place for place, name in enumerate(names)}
    tree = parsed(rule)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = f"x{places[_known(node.id, rule, places)]}"
    return ast.unparse(tree)


def _known(name: str, rule: str, places: Mapping[str, int]) -> str:
    if name not in places:
        raise InputError(
            f"the rule {rule!r} names the column {name!r}, which is none of {', '.join(list(places)[-8:])}: correct "
            "it, or give columns=, the names of all columns in order"
        )
    return name
