"""The border to a library: what it raises becomes an error of wmplug, in one place.

Libraries raise more kinds of exceptions than their manuals list, for a damaged file above all. The cause stays in
`__cause__`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from wmplug.errors import InputError


@contextmanager
def border(fault: str, advice: str, *, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Translate any exception of the block.

    Args:
        fault: what was received and why it fails, as the beginning of the message.
        advice: what to do, as its end.
        passing: exceptions that somebody above translates, such as those of a full disk.

    Raises:
        InputError: the block raised something else than an InputError, `passing` or a lack of memory.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, (InputError, MemoryError, *passing)):
            raise
        shown = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{fault} ({shown}): {advice}") from error
