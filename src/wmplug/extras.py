"""The optional packages of wmplug: the error of an import that lacks one names the extra that brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from wmplug.errors import PluginError


@contextmanager
def need(extra: str, otherwise: str = "") -> Iterator[None]:
    """Surround imports that work only with an extra.

    >>> with need("evidence"):
    ...     import pyrage

    Args:
        extra: name of the extra in pyproject.toml.
        otherwise: what the user can do instead, as the end of a sentence.

    Raises:
        PluginError: a package that the extra brings cannot be imported. A fault in wmplug itself stays an ImportError.
    """
    try:
        yield
    except ImportError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "wmplug"):
            raise
        raise PluginError(
            f"{missing!r} is needed here and cannot be imported ({error}): `pip install 'wmplug[{extra}]'`"
            + (f", or {otherwise}" if otherwise else "")
        ) from error
