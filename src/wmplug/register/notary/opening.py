"""Opens a package: what somebody else wrote is read within limits, beside the key of the notary."""

import hashlib
import io
import json
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wmplug.errors import InputError, NotaryError
from wmplug.keys.files import PIECE, read_bytes, write_new
from wmplug.keys.owner import Pledge
from wmplug.register.notary.case import check_name
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.package import FOLDERS, MEMBER, PARTS, SCHEMA, SEALED, Package, scheme_of
from wmplug.tasks import public as tasks
from wmplug.tasks.base import decoded
from wmplug.watermark.brief import Brief
from wmplug.watermark.carriers import Inputs, digest, read_carriers
from wmplug.watermark.decided import Decided

_FACTS = 4 << 20  # bytes of package.json, and of any text whatever the package's size
_RATIO = 32  # unpacked bytes for each sealed one: texts and logs pack to a tenth, and parsed they take 25 times as much
_TASK = 1 << 30  # bytes of task.npz whatever the package's size: pictures of one colour pack to a thousandth
_DEFLATED = 1100  # no bytes deflate to less than this part
_CLASSES = 1 << 20  # more than any vocabulary has; the derivation holds each of them
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_UNREADABLE = (
    *(KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError, EOFError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


def open_package(notary: Notary, file: str | Path, folder: str | Path, *, sha256: str | None = None) -> Package:
    """Open a sealed package, and unpack the register's parts into `folder`/register.

    Args:
        notary: the notary that it was sealed to.
        file: the package.
        folder: folder to unpack to; replaces the files of an earlier opening.
        sha256: expected digest of the sealed file, hex; if it differs, nothing is unpacked.

    Raises:
        NotaryError: the package was sealed to another key, is another one, or holds something else.
    """
    file = Path(file)
    try:
        sealed = read_bytes(file, SEALED)
    except OSError as error:
        raise NotaryError(f"{file} cannot be read ({error.strerror}): check the path") from None
    actual = hashlib.sha256(sealed).hexdigest()
    if sha256 not in (None, actual):
        raise NotaryError(
            f"{file} is not the package that the case was fixed for: its SHA-256 is {actual}, and the case names "
            f"{sha256}; give that one"
        )
    text = _FACTS + _RATIO * len(sealed)
    plain = io.BytesIO(notary.unseal(sealed, str(file)))
    if not zipfile.is_zipfile(plain):
        raise NotaryError(f"{file} is not a package, though it was sealed to this notary: ask the owner for it again")
    try:
        with zipfile.ZipFile(plain) as archive:
            _check_members(archive, text)
            facts = json.loads(_content(archive, "package.json", _FACTS))
            arrays = _arrays(_content(archive, "task.npz", max(_TASK, text)))
            package = _unpack(facts, arrays, actual, text)
            _lay_out(archive, Path(folder))
    except InputError:
        raise
    except _UNREADABLE as error:
        raise NotaryError(f"{file} is not a package ({type(error).__name__}: {error}): ask for it again") from None
    return package


def _check_members(archive: zipfile.ZipFile, most: int) -> None:
    """Refuse names that have no place in a package, and a register that unpacks to more than `most` bytes."""
    # The sender chose the names and the sizes.
    for member in archive.infolist():
        if member.filename not in ("package.json", "task.npz") and not MEMBER.fullmatch(member.filename):
            raise NotaryError(f"the package holds {member.filename!r}, which has no place in a register: refuse it")
    if len(set(archive.namelist())) < len(archive.namelist()):
        raise NotaryError("the package holds two files of one name: refuse it")
    size = sum(member.file_size for member in archive.infolist() if member.filename.startswith("register/"))
    if size > most:
        raise NotaryError(f"the package's register unpacks to {size:,} bytes, more than a log packs: refuse it")


def _content(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """One member, of at most `most` bytes and of no more than it declares."""
    member = archive.getinfo(name)
    if member.file_size > min(most, _DEFLATED * (member.compress_size + 1)):
        raise NotaryError(f"the package's {name} declares {member.file_size:,} bytes, too many: refuse it")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise NotaryError(f"the package's {name} is packed by another method than wmplug's: refuse it")
    found = io.BytesIO()
    with archive.open(member) as file:
        while piece := file.read(PIECE):  # a whole read would unpack first, and cut to the declared size then
            found.write(piece)
    return found.getvalue()


def _arrays(task: bytes) -> dict[str, Any]:
    """The arrays in task.npz, as `np.savez` wrote them: unpacked, each with as many bytes as its header declares."""
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(task)) as saved:
        if sum(member.file_size for member in saved.infolist()) > len(task):
            raise ValueError("the arrays have more bytes than their file")
        for member in saved.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{member.filename} is packed once more")
            with saved.open(member) as file:
                shape, _, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
                size = math.prod(shape) * dtype.itemsize
                if dtype.hasobject or 0 in (*shape, dtype.itemsize) or size != member.file_size - file.tell():
                    raise ValueError(f"{member.filename} declares {shape} of {dtype}, and its bytes do not fit that")
                file.seek(0)
                arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(file, allow_pickle=False)
    return arrays


def _unpack(facts: Mapping[str, Any], arrays: Mapping[str, Any], sha256: str, most: int) -> Package:
    """The package; a text among the arrays has at most `most` bytes."""
    public, salt = facts["public"], facts["salt"]
    if facts["schema"] != SCHEMA:
        raise ValueError(f"schema {facts['schema']!r}")
    form, parameters = public["form"], public["parameters"]
    carriers = _texts(arrays["carriers"], most) if form == "text" else arrays["carriers"]
    material = {
        name: _material(arrays[f"material/{name}"], value, most)
        for name, value in parameters.items()
        if str(value).startswith("sha256:")
    }
    one = 1 if isinstance(carriers, list) else carriers.nbytes // len(carriers)
    if not 1 <= public["triggers"] <= 10**6 or public["triggers"] * one > max(_TASK, most):
        raise ValueError(f"{public['triggers']} triggers")
    if public.get("classes", 0) > _CLASSES:
        raise ValueError(f"{public['classes']:,} classes")
    labels, task = arrays.get("labels"), tasks.read(public)
    if labels is not None and labels.dtype == np.uint8:
        labels = decoded(task, _texts(labels, most))
    return Package(
        check_name(facts["case"]),
        public,
        Pledge(public["id"], bytes.fromhex(facts["secret"]), bytes.fromhex(facts["blind"])),
        None if salt is None else bytes.fromhex(salt),
        scheme_of(public, material),
        Brief(carriers, form, task, labels, public["triggers"]),
        facts["references"],
        sha256,
        _decided(arrays, carriers, public, most) if "log/pairs" in arrays else None,
    )


def _decided(arrays: Mapping[str, Any], carriers: Inputs, public: Mapping[str, Any], most: int) -> Decided:
    """The queries of a log, each in the form of the carriers, between two classes, of somebody with a name or none."""
    given, customers = arrays["log/inputs"], _texts(arrays["log/customers"], most)
    inputs = read_carriers(_texts(given, most) if isinstance(carriers, list) else given, "the log's queries")[0]
    if _kind(inputs) != _kind(carriers) or not all(isinstance(who, str) for who in customers):
        raise ValueError("a log of queries that are no carriers, or of customers without names")
    decided = Decided(inputs, arrays["log/pairs"], tuple(customers))
    decided.check(public["classes"])
    return decided


def _kind(inputs: Inputs) -> Any:
    return "text" if isinstance(inputs, list) else (inputs.dtype, inputs.shape[1:])


def _material(array: Any, published: str, most: int) -> Any:
    """An array as it is; or texts, packed as JSON bytes, if the texts have the published digest."""
    return array if f"sha256:{digest(array)}" == published else _texts(array, most)


def _texts(array: Any, most: int) -> Any:
    if array.nbytes > most:
        raise ValueError(f"{array.nbytes:,} bytes of text, more than a package of this size packs")
    return json.loads(array.tobytes())


def _lay_out(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack the register whole or not at all, in place of that of an earlier opening."""
    target = folder / "register"
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise NotaryError(f"{target} is a file or a link, and a folder is needed: remove it, or choose another folder")
    others = sorted({one.name for one in target.glob("*")} - {*PARTS, *FOLDERS})
    if others:
        raise NotaryError(f"{target} holds {others[0]!r}, which no package brought: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".register.", dir=folder) as made:
        for name in archive.namelist():
            if name.startswith("register/"):
                path = Path(made, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                write_new(path, _content(archive, name, archive.getinfo(name).file_size), 0o644)
        if target.exists():
            shutil.rmtree(target)
        if (new := Path(made, "register")).exists():
            new.rename(target)
