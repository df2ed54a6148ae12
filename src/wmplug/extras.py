"""The optional packages of wmplug: an import that misses one says which extra brings it."""

from collections.abc import Iterator
from contextlib import contextmanager

from wmplug.errors import PluginError


@contextmanager
def need(extra: str, otherwise: str = "") -> Iterator[None]:
    """Goes around imports that work only with an extra.

    >>> with need("evidence"):
    ...     import pyrage

    Args:
        extra: as pyproject.toml names it.
        otherwise: what the reader can do instead, as the end of a sentence.

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
