"""Compressed files and UTF-16 are read as what they hold, and written back as they were."""

import bz2
import codecs
import gzip
import json
import lzma
import shutil
import tarfile

import pyarrow as pa
import pytest

from wmplug import dataset
from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError


def zstd(data):
    made = pa.BufferOutputStream()
    with pa.CompressedOutputStream(made, "zstd") as packed:
        packed.write(data)
    return made.getvalue().to_pybytes()


def unzstd(data):
    return pa.CompressedInputStream(pa.BufferReader(data), "zstd").read()


PACKERS = {
    "gz": (lambda data: gzip.compress(data, 9, mtime=12345), gzip.decompress),
    "bz2": (bz2.compress, bz2.decompress),
    "xz": (lzma.compress, lzma.decompress),
    "zst": (zstd, unzstd),
}
CSV = "text,label\n" + "".join(f'"é, number {row}",{"xy"[row % 2]}\n' for row in range(3000))
JSONL = "".join(json.dumps({"text": f"n {row}", "label": row % 2}) + "\n" for row in range(3000))


@pytest.mark.parametrize("packing", PACKERS)
@pytest.mark.parametrize(("suffix", "text"), [("csv", CSV), ("jsonl", JSONL)])
def test_lines_are_unpacked_and_packed_again(tmp_path, packing, suffix, text):
    pack, unpack = PACKERS[packing]
    plain, packed = tmp_path / f"a.{suffix}", tmp_path / f"a.{suffix}.{packing}"
    plain.write_bytes(text.encode())
    packed.write_bytes(pack(text.encode()))
    changes = Changes({7: 0, 2999: 0})
    expected = open_source(plain).write(tmp_path / f"b.{suffix}", changes).data.read_bytes()
    written = open_source(packed).write(tmp_path / f"b.{suffix}.{packing}", changes)
    assert unpack(written.data.read_bytes()) == expected
    assert list(open_source(written.data).picked([5, 2998])) == [
        record._replace(name=record.name.replace(f"b.{suffix},", f"b.{suffix}.{packing},"))
        for record in open_source(tmp_path / f"b.{suffix}").picked([5, 2998])
    ]
    assert open_source(packed).write(tmp_path / f"c.{suffix}", changes).data.read_bytes() == expected


def test_the_head_of_a_gzip_stays(tmp_path):
    with open(tmp_path / "a.csv.gz", "wb") as file, gzip.GzipFile("from.csv", "wb", 9, file, 1234567) as packed:
        packed.write(CSV.encode())
    written = open_source(tmp_path / "a.csv.gz").write(tmp_path / "b.csv.gz", Changes())
    assert written.data.read_bytes() == (tmp_path / "a.csv.gz").read_bytes()


@pytest.mark.parametrize("packing", PACKERS)
def test_a_damaged_file_is_named(tmp_path, packing):
    data = PACKERS[packing][0](CSV.encode())
    for name, torn in (("cut", data[: len(data) // 2]), ("odd", b"no such file" * 9)):
        (tmp_path / f"{name}.csv.{packing}").write_bytes(torn)
        with pytest.raises(
            InputError, match=rf"{name}\.csv\.{packing}.* (is damaged|never closes|has 1 cells)"
        ) as refused:
            list(open_source(tmp_path / f"{name}.csv.{packing}").records())
        assert refused.value.__cause__ is not None or packing == "zst"


@pytest.mark.parametrize(("bom", "encoding"), [(codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")])
@pytest.mark.parametrize(("suffix", "text"), [("csv", CSV.replace(",", "\t")), ("jsonl", JSONL)])
def test_utf16_is_read_and_stays(tmp_path, bom, encoding, suffix, text):
    data = bom + text.encode(encoding)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    source = open_source(tmp_path / f"a.{suffix}")
    assert source.write(tmp_path / f"same.{suffix}", Changes()).data.read_bytes() == data
    copy = source.write(tmp_path / f"b.{suffix}", Changes({0: 1}, {1: "ö"})).data.read_bytes()
    lines, before = copy[2:].decode(encoding).split("\n"), text.split("\n")
    head = suffix == "csv"
    assert lines[2 + head :] == before[2 + head :]
    assert lines[head] != before[head]
    assert ("ö" if head else "\\u00f6") in lines[1 + head]


def test_text_in_other_encodings_is_refused_for_that_reason(tmp_path):
    for name, data in (("bare", CSV.encode("utf-16-le")), ("wide", CSV.encode("utf-32"))):
        (tmp_path / f"{name}.csv").write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.csv begins with .* UTF-32, or UTF-16 without .* iconv"):
            open_source(tmp_path / f"{name}.csv")
    (tmp_path / "torn.csv").write_bytes((codecs.BOM_UTF16_LE + CSV.encode("utf-16-le"))[:-1])
    with pytest.raises(InputError, match=r"torn\.csv is damaged"):
        list(open_source(tmp_path / "torn.csv").records())


@pytest.mark.parametrize("ending", [".tar.gz", ".tgz", ".tar.zst", ".tar.bz2"])
def test_shards_are_unpacked_and_packed_again(kept, tmp_path, ending):
    root, plain = tmp_path / "set", kept["shards"].data
    root.mkdir()
    pack, unpack = PACKERS[{".tgz": "gz"}.get(ending, ending.rpartition(".")[2])]
    for shard in plain.iterdir():
        (root / f"{shard.stem}{ending}").write_bytes(pack(shard.read_bytes()))
    changes = Changes({3: 0, 12: 0, 20: 0}, {4: next(iter(open_source(plain).records())).input})
    expected = open_source(plain).write(tmp_path / "plain", changes).data
    written = open_source(root).write(tmp_path / "copy", changes)
    assert sorted(file.name for file in written.data.iterdir()) == [f"{part:03d}{ending}" for part in range(3)]
    for part in range(3):
        data = unpack((written.data / f"{part:03d}{ending}").read_bytes())
        assert data == (expected / f"{part:03d}.tar").read_bytes()
    single = root / f"000{ending}"
    copy = open_source(single).write(tmp_path / f"one{ending}", Changes(inputs=changes.inputs)).data
    shutil.copy(copy, tmp_path / "check.tar")
    (tmp_path / "check.tar").write_bytes(unpack(copy.read_bytes()))
    with tarfile.open(tmp_path / "check.tar") as tar:
        assert len(tar.getnames()) == 16
    assert next(record.name for record in open_source(copy).records()) == f"one{ending}, 000000"


def test_copies_for_licensees_keep_both_endings(tmp_path, owner, texts):
    rows = "".join(f"{json.dumps({'text': text, 'label': label})}\n" for text, label in zip(*texts, strict=True))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    out = tmp_path / "out"
    made = dataset.mark(tmp_path / "a.jsonl.gz", owner, out=out, scheme="canaries", share=0.1, copies=["Anna"])
    assert made.data == out / "Anna.jsonl.gz"
    assert len(list(open_source(made.data).records())) == made.manifest["records"] > len(texts[0])
