"""Files that others wrote, or put something else in the place of."""

import hashlib
import json
import os

import pytest

from wmplug.errors import InputError
from wmplug.keys.files import (
    JSON,
    MOST,
    PIECE,
    file_digest,
    files_of,
    opened,
    pieces_of,
    read_bytes,
    read_json,
    shown,
    write_new,
)


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def device(path):
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [pipe, folder, device])
@pytest.mark.parametrize("read", [opened, read_bytes, read_json, file_digest])
def test_only_a_regular_file_is_read_and_nothing_blocks(tmp_path, make, read):
    make(tmp_path / "x")
    with pytest.raises(OSError, match="not a regular file") as caught:
        read(tmp_path / "x")
    assert caught.value.filename == str(tmp_path / "x")


def test_no_descriptor_stays_open(tmp_path):
    os.mkfifo(tmp_path / "x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(OSError, match="regular"):
            opened(tmp_path / "x")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_file_is_read_up_to_the_limit(tmp_path):
    file = tmp_path / "x"
    file.write_bytes(b"12345")
    assert read_bytes(file, 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(file, 4)


@pytest.mark.parametrize(("read", "most"), [(read_bytes, MOST), (read_json, JSON)])
def test_a_sparse_file_is_not_read_beyond_the_limit(tmp_path, read, most):
    with open(tmp_path / "x", "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match=f"more than {most:,} bytes"):
        read(tmp_path / "x")


def test_json_that_is_too_deep_is_a_value_error(tmp_path):
    (tmp_path / "x").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(tmp_path / "x")
    (tmp_path / "x").write_text(json.dumps({"a": [1]}))
    assert read_json(tmp_path / "x") == {"a": [1]}


def test_every_file_below_a_folder_in_order(tmp_path):
    names = ["b", "a.txt", "a/z", "a/b/c", "a/a", "c/d"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "c" / "link").symlink_to(tmp_path / "b")
    (tmp_path / "folder").symlink_to(tmp_path / "a")
    found = list(files_of(tmp_path))
    # The files of a folder come before those of its folders.
    assert [name for name, _ in found] == ["a.txt", "b", "a/a", "a/z", "a/b/c", "c/d", "c/link"]
    assert all(file == tmp_path / name for name, file in found)
    assert list(files_of(tmp_path / "b")) == [(".", tmp_path / "b")]


def test_what_is_no_file_is_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"none is neither a file nor a folder"):
        list(files_of(tmp_path / "none"))
    (tmp_path / "x").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"x is not a regular file, or a link that leads nowhere"):
        list(files_of(tmp_path))


def test_a_folder_that_cannot_be_read_is_no_empty_one(tmp_path, monkeypatch):
    (tmp_path / "shut").mkdir()
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"shut cannot be read \(Permission denied\), and a folder is committed whole"):
        list(files_of(tmp_path))


@pytest.mark.parametrize(("length", "sizes"), [(0, [0]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4]), (9, [4, 4, 1])])
def test_only_the_last_piece_is_shorter(tmp_path, length, sizes):
    data = bytes(range(length))
    (tmp_path / "x").write_bytes(data)
    pieces = [bytes(piece) for piece in pieces_of(tmp_path / "x", bytearray(4))]
    assert [len(piece) for piece in pieces] == sizes
    assert b"".join(pieces) == data


@pytest.mark.parametrize("length", [0, 1, PIECE, PIECE + 1])
def test_a_digest_is_of_the_whole_file(tmp_path, length):
    data = os.urandom(length)
    (tmp_path / "x").write_bytes(data)
    assert file_digest(tmp_path / "x") == (hashlib.sha256(data).hexdigest(), length)


def test_a_name_that_is_no_utf8_is_shown_with_escapes():
    assert shown("caf\u00e9") == "caf\u00e9"
    assert shown(os.fsdecode(b"caf\xe9.txt")) == "caf\\xe9.txt"


def test_a_file_is_private_until_it_is_whole(tmp_path, monkeypatch):
    """Its mode is what was asked for, whatever the old file's; the temporary one lies beside it, for its owner only."""
    (tmp_path / "x").write_bytes(b"old")
    (tmp_path / "x").chmod(0o600)
    seen, replace = [], os.replace

    def looked(temporary, path):
        seen.append(temporary)
        assert (tmp_path / "x").read_bytes() == b"old"
        replace(temporary, path)

    monkeypatch.setattr(os, "replace", looked)
    write_new(tmp_path / "x", b"new", 0o644)
    assert (tmp_path / "x").read_bytes() == b"new"
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644
    (temporary,) = seen
    assert os.path.dirname(temporary) == str(tmp_path)
    assert os.path.basename(temporary).startswith(".x.")
