"""Packages that would take memory, open files or lie where no file belongs: each is refused, whole."""

import io
import json
import os
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from hearings import sealed_for

from wmplug.errors import InputError, NotaryError
from wmplug.register.notary import age
from wmplug.register.notary.opening import open_package

MOST = 200 << 20  # bytes that a hostile package may take


@pytest.fixture
def sealed(story, notary, tmp_path):
    return sealed_for(story, notary, tmp_path)


def members_of(notary, sealed):
    with zipfile.ZipFile(io.BytesIO(notary.unseal(sealed.read_bytes(), ""))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(members, method=zipfile.ZIP_DEFLATED):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return made.getvalue()


def seal(notary, sealed, plain):
    sealed.write_bytes(age.seal(plain, notary.recipient))


def header(shape, dtype="|u1"):
    made = io.BytesIO()
    np.lib.format.write_array_header_1_0(made, {"descr": dtype, "fortran_order": False, "shape": shape})
    return made.getvalue()


def arrays_of(task):
    with zipfile.ZipFile(io.BytesIO(task)) as saved:
        return {name: saved.read(name) for name in saved.namelist()}


def task_with(members, carriers, method=zipfile.ZIP_STORED):
    arrays = {**arrays_of(members["task.npz"]), "carriers.npy": carriers}
    return {**members, "task.npz": packed(arrays, method)}


def bomb_in_a_bomb(members):
    return task_with(members, header((1 << 31,)) + bytes(1 << 28), zipfile.ZIP_DEFLATED)


def huge_shape(members):
    return task_with(members, header((1 << 45,)))


def rows_without_bytes(members):
    return task_with(members, header((1 << 45, 0)))


def things_without_bytes(members):
    return task_with(members, header((1 << 45,), "|V0"))


def negative_shape(members):
    return task_with(members, header((-2, -3)) + bytes(6))


def objects(members):
    return task_with(members, header((1,), "|O") + bytes(8))


def pickle(members):
    made = io.BytesIO()
    np.save(made, np.array([{}], object), allow_pickle=True)
    return task_with(members, made.getvalue())


def many_classes(members):
    facts = json.loads(members["package.json"])
    facts["public"]["classes"] = 10**8
    return {**members, "package.json": json.dumps(facts).encode()}


def long_name(members):
    return {**members, f"register/anchors/{'a' * 300}": b""}


def blank_facts(members):
    return {**members, "package.json": b" " * (1 << 28)}


def blank_owner(members):
    return {**members, "register/owner.pub": b" " * (1 << 28)}


def many_brackets(members):
    return {**members, "package.json": b"[" + b"[]," * 1_300_000 + b"[]]"}


def blank_labels(members):
    made = io.BytesIO()
    np.save(made, np.full(100 << 20, 32, np.uint8))
    arrays = {**arrays_of(members["task.npz"]), "labels.npy": made.getvalue()}
    return {**members, "task.npz": packed(arrays, zipfile.ZIP_STORED)}


@pytest.mark.parametrize(
    "make",
    [
        bomb_in_a_bomb,
        huge_shape,
        rows_without_bytes,
        things_without_bytes,
        negative_shape,
        objects,
        pickle,
        many_classes,
        long_name,
        blank_facts,
        blank_owner,
        many_brackets,
    ],
)
def test_what_a_package_takes_is_bounded(notary, sealed, tmp_path, make):
    seal(notary, sealed, packed(make(members_of(notary, sealed))))
    assert sealed.stat().st_size < 3 << 20
    refused_within(MOST, notary, sealed, tmp_path / "out")


def test_texts_are_bounded_by_what_was_sealed(notary, sealed, tmp_path):
    """An array may be large, for pictures of one colour are; as JSON it would take many times as much."""
    seal(notary, sealed, packed(blank_labels(members_of(notary, sealed))))
    refused_within(3 * (100 << 20), notary, sealed, tmp_path / "out")


def refused_within(most, notary, sealed, folder):
    tracemalloc.start()
    try:
        with pytest.raises(NotaryError, match=r"refuse it|not a package"):
            open_package(notary, sealed, folder)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most
    assert not folder.exists()


def test_a_member_that_says_it_is_small(notary, sealed, tmp_path):
    """The size that a member declares is a lie: it unpacks to more than a thousand times as much."""
    members = members_of(notary, sealed)
    plain = packed({**members, "package.json": b" " * (256 << 20)})
    lied = plain.replace((256 << 20).to_bytes(4, "little"), (1 << 20).to_bytes(4, "little"))
    assert lied != plain
    seal(notary, sealed, lied)
    refused_within(MOST, notary, sealed, tmp_path / "out")


def test_pictures_of_one_colour_pass(notary, sealed, tmp_path):
    """100,000 of them pack to almost nothing; the package is honest, only not that of this watermark."""
    members = members_of(notary, sealed)
    made = io.BytesIO()
    np.save(made, np.zeros((100_000, 32, 32), np.uint8))
    arrays = arrays_of(members["task.npz"])
    arrays["carriers.npy"] = made.getvalue()
    seal(notary, sealed, packed({**members, "task.npz": packed(arrays, zipfile.ZIP_STORED)}))
    assert sealed.stat().st_size < 1 << 20
    assert open_package(notary, sealed, tmp_path / "out").brief.carriers.shape == (100_000, 32, 32)


def test_a_large_register_passes(notary, sealed, tmp_path):
    """What it may unpack to grows with what was sealed."""
    token = os.urandom(5 << 20)
    seal(notary, sealed, packed({**members_of(notary, sealed), "register/anchors/large.tsr": token}))
    open_package(notary, sealed, tmp_path / "out")
    assert (tmp_path / "out" / "register" / "anchors" / "large.tsr").read_bytes() == token


@pytest.mark.parametrize(
    "more",
    [
        ("register/anchors", "register/anchors/x"),
        ("register",),
        ("register/log.jsonl/x",),
        ("register/quarantine/x.torn",),
        ("surprise",),
    ],
)
def test_a_file_where_a_folder_belongs(notary, sealed, tmp_path, more):
    folder = tmp_path / "out"
    open_package(notary, sealed, folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    members = members_of(notary, sealed)
    seal(notary, sealed, packed({**members, **dict.fromkeys(more, b"x")}))
    with pytest.raises(NotaryError, match="no place"):
        open_package(notary, sealed, folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_files_of_one_name(notary, sealed, tmp_path):
    made = io.BytesIO(packed(members_of(notary, sealed)))
    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("register/log.jsonl", b"another")
    seal(notary, sealed, made.getvalue())
    with pytest.raises(NotaryError, match="two files of one name"):
        open_package(notary, sealed, tmp_path / "out")


def test_what_lies_where_the_register_goes(notary, sealed, tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "case"
    (elsewhere / "anchors").mkdir(parents=True)
    (elsewhere / "anchors" / "kept").write_text("kept")
    folder.mkdir()
    place = folder / "register"
    for make in (lambda: place.symlink_to(elsewhere), lambda: place.write_text("a file"), lambda: os.mkfifo(place)):
        make()
        with pytest.raises(NotaryError, match="a file or a link"):
            open_package(notary, sealed, folder)
        place.unlink()
    place.mkdir()
    (place / "anchors").symlink_to(elsewhere / "anchors")
    open_package(notary, sealed, folder)
    assert [path.name for path in (elsewhere / "anchors").iterdir()] == ["kept"]
    assert not (place / "anchors").is_symlink()
    (place / "secret").mkdir()
    with pytest.raises(NotaryError, match="no package brought"):
        open_package(notary, sealed, folder)
    assert (place / "secret").is_dir()


@pytest.mark.parametrize("name", ["logo", "pictures", "phrases", "queries", "pool"])
def test_material_is_no_path(notary, sealed, tmp_path, name):
    """A published parameter that names a file opens none: reading the pipe would never end."""
    canary = tmp_path / "canary.png"
    os.mkfifo(canary)
    scheme = {"logo": "logo", "phrases": "phrase", "pictures": "random-label"}.get(name, "tilt")
    members = members_of(notary, sealed)
    facts = json.loads(members["package.json"])
    facts["public"] |= {"scheme": scheme, "parameters": {name: str(canary)}}
    seal(notary, sealed, packed({**members, "package.json": json.dumps(facts)}))
    with pytest.raises(InputError, match="only a digest is published"):
        open_package(notary, sealed, tmp_path / "out")


def test_a_package_that_is_no_file(notary, tmp_path):
    pipe = tmp_path / "claim.age"
    os.mkfifo(pipe)
    for place in (pipe, "/dev/zero", tmp_path):
        with pytest.raises(NotaryError, match="not a regular file"):
            open_package(notary, place, tmp_path / "out")


def test_the_whole_process_stays_small(notary, sealed, tmp_path):
    """Python's own count misses what zlib and the age library take: the process is measured too."""
    seal(notary, sealed, packed(blank_facts(members_of(notary, sealed))))
    code = (
        "import resource, sys\n"
        "from wmplug.errors import NotaryError\n"
        "from wmplug.register.notary.identity import Notary\n"
        "from wmplug.register.notary.opening import open_package\n"
        "notary = Notary.open(sys.argv[1], passphrase=sys.argv[2])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: open_package(notary, sys.argv[3], sys.argv[4])\n"
        "except NotaryError: print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)\n"
    )
    given = [str(notary.path), "another passphrase altogether", str(sealed), str(tmp_path / "out")]
    made = subprocess.run([sys.executable, "-c", code, *given], capture_output=True, check=True, text=True)
    assert int(made.stdout) < 200
