"""Files beside the records of a set: what refers to records follows the mark, or is refused before anything is written.

A list that still names the old place, digest or size of a record tells everybody which records carry the mark. A file
that nobody can judge is copied only if the owner says so.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from wmplug.dataset.records import Taken
from wmplug.dataset.sources.listings import SEVERAL, TOKEN, Listing, Unit, resummed, tokens_of
from wmplug.dataset.sources.tells import refuse_tells
from wmplug.errors import InputError
from wmplug.keys.files import MOST, PIECE, pieces_of

_ABOUT = re.compile(
    r"(readme|licen[cs]e|copying|notice|authors|contributors|citation|changelog|changes|datasheet|dataset_?card)\b.*"
    r"|\.git(ignore|attributes|keep)",
    re.IGNORECASE,
)  # names of files that speak of the set as a whole
_VIEWS = ("thumbs.db", ".ds_store")  # what file managers of Windows and macOS leave in folders that were opened
_DIGEST = re.compile(r"[0-9a-fA-F]{32,128}")
_COUNTS = re.compile(r"samples|records|examples|rows|lengths?\b|counts?\b", re.IGNORECASE)  # nsamples, shard_lengths
_PROBED, _SHOWN = 64, 8


@dataclass
class Moves:
    """What a copy did to the units.

    Attributes:
        names: new names of those that moved.
        written: those with other bytes.
    """

    names: dict[str, str] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Judged:
    """A companion.

    Attributes:
        name: its path in the set.
        file: the file.
        role: "about the set", "count" (of records), "list", "sums", "with" (one unit), "refers" (and cannot follow),
            "left out", "unknown".
        why: what was found in it.
        mentions: for a list, the unit that each line names; for sums, those that are named anywhere.
    """

    name: str
    file: Path
    role: str
    why: str
    mentions: Mapping[str, Unit] = field(default_factory=dict, repr=False)

    @property
    def counts(self) -> bool:
        """Whether added records would be missing in it."""
        said = _read(self.file) or "" if self.role == "sums" else ""
        return self.role in ("list", "count") or bool(_COUNTS.search(said))

    @property
    def of_one_class(self) -> bool:
        """Whether it is a list of some records that all have one class, and would list one of another."""
        units = set(self.mentions.values())
        return self.role == "list" and len(units) > 1 and len({unit.group for unit in units} - {""}) == 1


class Companions:
    """The companions of a set.

    Args:
        root: the folder of the set.
        files: names and paths of its files that hold no records.
        units: iterates over the files that do.
        keep: whether the owner wants unknown files copied as they are.
        single: whether each unit is one record.
    """

    def __init__(
        self,
        root: Path,
        files: Callable[[], Iterable[tuple[str, Path]]],
        units: Callable[[], Iterable[Unit]],
        keep: bool,
        single: bool,
    ) -> None:
        self._root, self._files, self._units, self._keep, self._single = root, files, units, keep, single
        self._found: list[Judged] | None = None
        self._groups: set[str] = set()

    @property
    def judged(self) -> list[Judged]:
        """All companions; finding their meaning reads them once."""
        if self._found is None:
            files = list(self._files())
            self._groups = {unit.group for unit in self._units()} if files else set()
            by_stem = {_stem(unit.name): unit for unit in self._units()} if files else {}
            self._found = [self._judge(name, file, self._groups, by_stem) for name, file in files]
        return self._found

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What each companion was taken for."""
        roles = {"list": "list, follows the mark", "sums": "sums, follow the mark", "with": "goes with its record"}
        return tuple(Taken(one.name, roles.get(one.role, one.role), one.why) for one in self.judged)

    def check(self, relabelled: bool, added: bool) -> None:
        """Refuse companions that a copy would make false, or that nobody can judge.

        Args:
            relabelled: whether labels change.
            added: whether records are added.

        Raises:
            InputError: there are such files.
        """
        found = self.judged
        moved = relabelled and self._single
        refers = [one for one in found if one.role == "refers" and (moved or added or not one.mentions)]
        refers += [one for one in found if (added and one.counts) or (moved and one.of_one_class)]
        if refers:
            raise InputError(
                f"{_listed(self._root, refers)}: a copy would make that false, which shows where the mark is. Take it "
                "out of the set and make it again for the copy"
            )
        if moved:
            self._refuse_tells()
        if (unknown := [one for one in found if one.role == "unknown"]) and not self._keep:
            raise InputError(
                f"{_listed(self._root, unknown)}: what refers to records shows where the mark is. Take it out of the "
                "set, or copy it as it is with keep_files=True (--keep-files)"
            )

    def _refuse_tells(self) -> None:
        """Refuse files that go with a record each, and say its class."""
        of: dict[str, list[tuple[str, str]]] = {}
        for one in self.judged:
            if one.role == "with":
                (unit,) = one.mentions.values()
                ending = one.name[len(_stem(unit.name)) :] if _stem(one.name) == _stem(unit.name) else ""
                of.setdefault(ending, []).append((unit.group, _read(one.file) or ""))
        for ending, pairs in of.items():
            refuse_tells(pairs, f"the files *{ending} beside the records of {self._root}", "leave them out")

    def write(self, grown: Path, moves: Moves) -> None:
        """Copy the companions into the copy, after its units.

        Args:
            grown: the growing copy.
            moves: what became of the units.
        """
        facts = {
            name: (_facts(self._root / name), _facts(grown / moves.names.get(name, name))) for name in moves.written
        }
        for one in self.judged:
            if one.role == "left out":
                continue
            place = grown / one.name
            if one.role == "with":
                unit = next(iter(one.mentions.values()))
                if new := moves.names.get(unit.name):
                    place = grown / (_stem(new) + one.name[len(_stem(unit.name)) :])
            place.parent.mkdir(parents=True, exist_ok=True)
            text = None
            if one.role == "list" and (moves.names or facts):
                text = Listing.read(_read(one.file) or "", one.mentions, self._groups).moved(moves.names, facts)
            elif one.role in ("sums", "with") and facts:
                text = resummed(_read(one.file) or "", one.mentions, facts)
            if text is None:
                shutil.copy2(one.file, place)
            else:
                place.write_bytes(text.encode())
                shutil.copystat(one.file, place)

    def _judge(self, name: str, file: Path, groups: set[str], by_stem: Mapping[str, Unit]) -> Judged:
        if Path(name).name.lower() in _VIEWS:
            return Judged(name, file, "left out", "a file manager made it, with names and small copies of pictures")
        text = _read(file)
        if file.stat().st_size == 0:
            return Judged(name, file, "about the set", "it is empty")
        if Path(name).name == "__len__" and (text or "").strip().isdecimal():
            return Judged(name, file, "count", "it counts the records")
        beside = next((by_stem[stem] for stem in _stems(name) if stem in by_stem), None)
        if text is None:
            why = "has bytes that are no text" if beside is None else f"belongs to {beside.name} and is no text"
            return Judged(name, file, "unknown" if beside is None or self._single else "refers", why)
        units = self._mentioned(text)
        tokens = {token for token in TOKEN.findall(text)}
        if beside is not None:
            return self._judge_beside(name, file, text, beside, tokens)
        if _numbers_classes(tokens, groups):
            return Judged(name, file, "about the set", "it names the classes with their numbers, and nothing else")
        if units:
            return self._judge_mentions(name, file, text, units, groups)
        if tokens <= groups:
            return Judged(name, file, "about the set", "it names classes and nothing else")
        if _ABOUT.fullmatch(Path(name).name) and not any(map(_DIGEST.fullmatch, tokens)):
            return Judged(name, file, "about the set", "it is called so, and names no record")
        return Judged(name, file, "unknown", "names no record, and may refer to them by their order or content")

    def _judge_beside(self, name: str, file: Path, text: str, unit: Unit, tokens: set[str]) -> Judged:
        facts = _facts(self._root / unit.name)
        said = {token.lower() for token in tokens}
        sums = said & {value for key, value in facts.items() if key != "size"}
        names = {unit.name.lower(), Path(unit.name).name.lower(), "*" + Path(unit.name).name.lower()}
        if sums and said - sums <= names:
            return Judged(name, file, "with", f"it has the digest of {unit.name}", {unit.name: unit})
        if self._single and not said & {unit.group.lower(), *names}:
            return Judged(name, file, "with", f"it is named after {unit.name}", {unit.name: unit})
        return Judged(name, file, "refers", f"refers to what {unit.name} holds")

    def _judge_mentions(self, name: str, file: Path, text: str, units: Mapping[str, Unit], groups: set[str]) -> Judged:
        roles, odd = self._sums(text, units)
        if odd:
            return Judged(name, file, "unknown", "names records, with digests of something unknown")
        if not self._single:
            role = "sums" if roles else "about the set"
            why = f"it has the {' and '.join(sorted(roles))} of files" if roles else "it names files, whose names stay"
            return Judged(name, file, role, why, units)
        try:
            Listing.read(text, units, groups)
        except ValueError as fault:
            return Judged(name, file, "refers", f"names records {fault}", {} if roles else units)
        why, of = "each line names one record", {unit.group for unit in units.values()}
        return Judged(name, file, "list", f"{why} of {min(of)}" if len(of) == 1 < len(groups) else why, units)

    def _mentioned(self, text: str) -> dict[str, Unit]:
        """Units by the tokens of a text that name them: by their paths, or else by their names, or by their stems."""
        said: dict[str, list[str]] = {}
        for line in text.splitlines():
            for token in tokens_of(line):
                parts = token.removeprefix("*").split("/")
                for first in range(len(parts) if TOKEN.fullmatch(token) else 1):  # spaces only as in the name itself
                    said.setdefault("/".join(parts[first:]), []).append(token)
        kinds: list[dict[str, Unit]] = [{}, {}, {}]
        for unit in self._units() if said else ():
            file = Path(unit.name)
            for found, wanted in zip(kinds, (unit.name, file.name, file.stem), strict=True):
                for token in said.get(wanted, ()):
                    if found is kinds[0] or token.removeprefix("*") == wanted:
                        found[token] = unit if found.get(token, unit) == unit else SEVERAL
        return next((found for found in kinds if found), {})

    def _sums(self, text: str, units: Mapping[str, Unit]) -> tuple[set[str], bool]:
        """The kinds of sums of units in a text, and whether it has other digests too."""
        roles: set[str] = set()
        known: set[str] = set()
        for unit in [unit for unit in dict.fromkeys(units.values()) if unit is not SEVERAL][:_PROBED]:
            for kind, value in _facts(self._root / unit.name).items():
                known.add(value)
                if re.search(rf"(?<![\w.]){re.escape(value)}(?![\w.])", text, re.IGNORECASE) and len(value) > 2:
                    roles.add(kind)
        digests = [token for token in TOKEN.findall(text) if _DIGEST.fullmatch(token) and not token.isdecimal()]
        odd = any(digest.lower() not in known for digest in digests[:_PROBED]) if len(units) <= _PROBED else False
        return roles, odd or (bool(digests) and not roles)


def _numbers_classes(tokens: set[str], groups: set[str]) -> bool:
    """Whether words are all classes and their numbers, from 0 or 1 on. Others can count records, which changes."""
    words = {token.strip(":") for token in tokens} - {""}
    counts = ({str(number) for number in range(first, first + len(groups))} for first in (0, 1))
    return any(words == groups | numbers for numbers in counts)


def _stem(name: str) -> str:
    folder, _, file = name.rpartition("/")
    return f"{folder}/{file.partition('.')[0]}" if folder else file.partition(".")[0]


def _stems(name: str) -> Iterator[str]:
    """The stems that a companion could share with its unit: `.a.png.crc` belongs to `a.png` too."""
    yield _stem(name)
    folder, slash, file = name.rpartition("/")
    if file.startswith("."):
        yield _stem(folder + slash + file[1:])


def _read(file: Path) -> str | None:
    """The text of a companion; None if it is none, or too long to be judged."""
    if file.stat().st_size > MOST:
        return None
    try:
        text = file.read_bytes().decode()
    except UnicodeDecodeError:
        return None
    return None if "\0" in text else text


def _facts(file: Path) -> dict[str, str]:
    """The sums of a file that lists give."""
    sums = [hashlib.new(kind, usedforsecurity=False) for kind in ("md5", "sha1", "sha256", "sha512")]
    size = crc = 0
    for piece in pieces_of(file, bytearray(PIECE)):
        for one in sums:
            one.update(piece)
        size, crc = size + len(piece), zlib.crc32(piece, crc)
    return {one.name: one.hexdigest() for one in sums} | {"crc32": f"{crc:08x}", "size": str(size)}


def _listed(root: Path, found: Sequence[Judged]) -> str:
    named = ", ".join(f"{one.name} ({one.why})" for one in found[:_SHOWN])
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"beside the records of {root} there is {named}{more}"
