"""Commitment to a creative element of a trigger: a logo, a picture, a poem."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import re
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from wmplug.errors import InputError
from wmplug.keys.files import read_bytes

_SIGNATURES = (
    (b"%PDF-", "application/pdf"),
    (b"RIFF....WAVE", "audio/wav"),
    (b"ID3", "audio/mpeg"),
    (b"OggS", "audio/ogg"),
    (b"fLaC", "audio/flac"),
)
_DATE = re.compile(r"\d{4}(-\d\d){0,2}")


def artwork(
    path_or_bytes: str | os.PathLike[str] | bytes,
    *,
    author: str | None = None,
    created: str | date | None = None,
    licence: str | None = None,
    title: str | None = None,
) -> dict[str, Any]:
    """Commit to a work. Author, date, licence and title are the owner's statements; only the file is measured.

    Args:
        path_or_bytes: its file, or its bytes (UTF-8 for a phrase).
        author: its author.
        created: ISO 8601 year, month, day or time ("2026", "2026-03", "2026-03-07", "2026-03-07T10:00:00Z").
        licence: the terms on which the owner holds or gives it: an SPDX identifier, or words.
        title: its title.

    Returns:
        The body of `artwork.committed`: kind, sha256, bytes, media_type, pixels ([width, height] or None), title,
        author, created, licence.

    Raises:
        InputError: the file does not exist or is empty, or the date is not a date or lies in the future.
    """
    if isinstance(path_or_bytes, (bytes, bytearray)):
        data, name = bytes(path_or_bytes), ""
    else:
        data, name = _content(Path(path_or_bytes)), os.fspath(path_or_bytes)
    if not data:
        raise InputError("the artwork is empty: give its file or its bytes")
    media_type, pixels = _media(data, name)
    return {
        "kind": "artwork",
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "media_type": media_type,
        "pixels": pixels,
        "title": title,
        "author": author,
        "created": None if created is None else _checked_date(created),
        "licence": licence,
    }


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path, 1 << 30)
    except OSError as error:
        raise InputError(f"the artwork {path} cannot be read ({error.strerror}): check the path") from error


def _media(data: bytes, name: str) -> tuple[str, list[int] | None]:
    """Media type by content before name, and the size of a picture."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as picture:
            return Image.MIME.get(picture.format or "", "application/octet-stream"), list(picture.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        pass
    for signature, media_type in _SIGNATURES:
        if re.match(signature, data, re.DOTALL):
            return media_type, None
    if guessed := mimetypes.guess_type(name)[0]:
        return guessed, None
    try:
        data.decode()
    except UnicodeDecodeError:
        return "application/octet-stream", None
    return "text/plain", None


def _checked_date(created: str | date) -> str:
    text = created.isoformat() if isinstance(created, date) else str(created)
    try:
        if _DATE.fullmatch(text):
            moment = datetime.fromisoformat(text + "-01" * (2 - text.count("-")))
        else:
            moment = datetime.fromisoformat(text.removesuffix("Z") + "+00:00" * text.endswith("Z"))
    except ValueError:
        raise InputError(f"created={text!r} is not an ISO 8601 date: write it as 2026-03-07") from None
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    if moment > datetime.now(timezone.utc) + timedelta(days=1):  # a day, for time zones
        raise InputError(f"created={text!r} lies in the future: give the day on which the work was made")
    return text
