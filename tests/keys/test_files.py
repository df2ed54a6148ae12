"""Files that others wrote, or put something else in the place of."""

import json
import os

import pytest

from wmplug.keys.files import JSON, MOST, file_digest, opened, read_bytes, read_json


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
