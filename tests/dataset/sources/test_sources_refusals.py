"""Sets that are damaged and places that cannot be written: the record is named, and nothing looks whole."""

import subprocess
import sys

import datasets
import pytest

from wmplug import dataset
from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError

HEAD = b"text,label\n"
BAD = {
    "short.csv": (HEAD + b"a,x\nb\n", r"short.csv, line 3 has 1 cells, and the header has 2"),
    "long.csv": (HEAD + b'a,x\n"b\nc",y,z\n', r"long.csv, line 3 has 3 cells, and the header has 2"),
    "latin.csv": (HEAD + "a,x\nJosé,y\n".encode("latin1"), r"latin.csv, line 3 is not UTF-8 \(byte 0xe9"),
    "open.csv": (HEAD + b'a,x\n"b,y\nc,x\n', r"open.csv, line 3 opens a quote that never closes"),
    "after.csv": (
        HEAD + b'a,x\n"b"c,y\n',
        r"after.csv, line 3 is not a record of a CSV: text behind a closing quote: double a",
    ),
    "inch.csv": (
        HEAD + b'5" pipe,x\n"5" pipe",y\nc,x\n',
        r"inch.csv, line 3 is not a record of a CSV: text behind",
    ),
    "begins.csv": (HEAD + b'a,x\n" pipe,y\n5" c,x\n', r"begins.csv, line 3 is not a record of a CSV: text behind a"),
    "return.csv": (HEAD + b"a,x\nb,y\rc,x\n", r"return.csv, line 3 is not a record of a CSV"),
    "unlabelled.csv": (HEAD + b"a,x\nb,\n", r"unlabelled.csv, line 3 has no label"),
    "numbers.csv": (
        b"a,b,label\n1,2,0\n3,,1\n",
        r"numbers.csv, line 3 has '' in the column b, where a number is needed",
    ),
    "json.jsonl": (b'{"text": "a", "label": 1}\n{"text": "b", \n', r"json.jsonl, line 2 is not JSON"),
    "list.jsonl": (b'{"text": "a", "label": 1}\n[1]\n', r"list.jsonl, line 2 is a list"),
    "key.jsonl": (
        b'{"text": "a", "label": 1}\n\n{"text": "b"}\n',
        r"key.jsonl, line 3 has no label, and other records have",
    ),
    "null.jsonl": (b'{"text": "a", "label": 1}\n{"text": null, "label": 0}\n', r"null.jsonl, line 2 has None as text"),
    "first.jsonl": (b'{"text": "a", "label": null}\n{"text": "b", "label": 1}\n', r"first.jsonl, line 1 has no label"),
    "kinds.jsonl": (
        b'{"text": "a", "label": 1}\n{"text": "b", "label": "x"}\n',
        r"kinds.jsonl, line 2 has the label 'x', and the first record 1: labels of different kinds",
    ),
    "truth.jsonl": (
        b'{"text": "a", "label": 1}\n{"text": "b", "label": true}\n',
        r"truth.jsonl, line 2 has the label True, and the first record 1",
    ),
    "array.jsonl": (
        b'{"text": "a", "label": 1}\n{"text": "b", "label": [1]}\n',
        r"array.jsonl, line 2 has the label \[1\]",
    ),
    "latin.jsonl": ('{"text": "é", "label": 1}\n'.encode("latin1"), r"latin.jsonl, line 1 is not UTF-8"),
    "empty.csv": (b"", r"empty.csv has no header"),
    "nothing.csv": (HEAD, r"nothing.csv has no records"),
    "headless.csv": (b"1.5,2,0\n3,4,1\n", r"the first line of .*headless.csv is not a header"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_record_is_named(tmp_path, name):
    data, message = BAD[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=message):
        list(open_source(tmp_path / name).records())
    with pytest.raises(InputError, match=message):  # also where nobody wants it
        list(open_source(tmp_path / name).picked([]))


def test_a_label_that_is_none_of_the_classes_is_named(kept):
    with pytest.raises(
        InputError, match=r"texts.csv, line \d+ has the label 'wine', which is not among the 1 classes iris"
    ):
        list(open_source(kept["texts.csv"].data, classes=["iris"]).records())
    with pytest.raises(
        InputError, match=r"flower/\d+.png has the label 'flower', which is not among the 1 classes china"
    ):
        list(open_source(kept["pictures"].data, classes=["china"]).records())


def test_a_late_label_that_is_none_of_the_classes_is_named(tmp_path):
    lines = [f"text number {row},{'ab'[row % 2]}" for row in range(60_000)]
    lines[-8] = "text,zzz"
    (tmp_path / "set.csv").write_text("\n".join(["text,label", *lines]))
    source = open_source(tmp_path / "set.csv", classes=["a", "b"])
    assert source.classes == ("a", "b")
    with pytest.raises(InputError, match=r"set.csv, line 59994 has the label 'zzz', which is not among the 2 classes"):
        list(source.picked([0]))


def test_a_damaged_picture_is_named_and_its_copy_is_not_left(kept, tmp_path, encoded, pictures):
    folder = tmp_path / "set"
    (folder / "a").mkdir(parents=True)
    whole = encoded(pictures[0][0])
    (folder / "a" / "1.png").write_bytes(whole)
    (folder / "a" / "2.png").write_bytes(whole[: len(whole) // 2])
    source = open_source(folder)
    with pytest.raises(InputError, match=r"a/2.png is not a whole picture"):
        list(source.records())
    with pytest.raises(InputError, match=r"a/2.png is not a whole picture"):
        list(source.picked([0]))
    assert [record.name for record in source.picked([0], check=False)] == ["a/1.png"]
    with pytest.raises(InputError, match=r"a/2.png is not a whole picture"):
        source.write(tmp_path / "copy", Changes(inputs={1: pictures[0][1]}))
    assert list(tmp_path.iterdir()) == [folder]


def test_no_columns_are_made_up_for_added_records(tmp_path):
    (tmp_path / "ids.csv").write_bytes(b"id,text,label\n1,a,x\n2,b,y\n")
    with pytest.raises(InputError, match="and the values of id are unknown"):
        open_source(tmp_path / "ids.csv").write(tmp_path / "copy.csv", Changes(added=[Added(0, "c", 0)]))
    assert [file.name for file in tmp_path.iterdir()] == ["ids.csv"]


@pytest.mark.parametrize("name", ["texts.csv", "pictures"])
def test_places_that_are_taken_or_part_of_the_set_are_refused(kept, tmp_path, name):
    source = open_source(kept[name].data)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "theirs").write_text("kept")
    for out, message in [
        (None, "give out="),
        (kept[name].data, "inside the set"),
        (tmp_path / "full", "already exists"),
        (tmp_path / "no" / "copy", "is not a folder: make it"),
        ("/sys/copy", "was not written: .*[Pp]ermitted|denied|[Rr]ead-only"),
    ]:
        with pytest.raises(InputError, match=message):
            source.write(out, Changes())
    if name == "pictures":
        with pytest.raises(InputError, match="inside the set"):
            source.write(kept[name].data / "china" / "copy", Changes())
    assert [file.name for file in tmp_path.rglob("*")] == ["full", "theirs"]
    (tmp_path / "empty").mkdir()
    assert source.write(tmp_path / "empty", Changes()).data.exists()


FULL = """
import resource, sys
from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError
source = open_source(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    source.write(sys.argv[2], Changes({0: 1}))
except InputError as error:
    print(error)
"""


@pytest.mark.parametrize("name", ["texts.csv", "texts.jsonl", "table.npz", "pictures", "shards"])
def test_a_full_disk_half_way_leaves_nothing_and_names_the_record(kept, tmp_path, name):
    out = tmp_path / "copy"
    command = [sys.executable, "-c", FULL, str(kept[name].data), str(out), "4096"]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert f"{out} was not written: File too large at" in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", ["[0]", '{"a": 1}'])
def test_a_label_that_is_no_label_is_refused_with_its_line(tmp_path, label):
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "t{i}", "label": {label}}}\n' for i in range(9)))
    with pytest.raises(InputError, match=r"a\.jsonl, line 1 has the label .*: give a text or a whole number"):
        open_source(tmp_path / "a.jsonl").write(tmp_path / "b.jsonl", Changes({1: 0}))


OTHER_NAMES = {
    "texts.csv": ["a.jsonl", "a.parquet", "a.tsv", "a.tar", "a.jsonl.gz"],
    "texts.tsv": ["a.csv"],
    "texts.jsonl": ["a.csv", "a.csv.zst"],
    "texts.npz": ["a.csv", "a.npz.gz"],
    "pictures": ["a.tar", "a.parquet", "a.tgz"],
    "shards": ["a.tar", "a.parquet"],
}
SAME_NAMES = {
    "texts.csv": ["a.csv", "a.CSV", "a.csv.gz", "a", "a.v2"],
    "texts.tsv": ["a.tab"],
    "texts.jsonl": ["a.ndjson", "a.jsonl.xz"],
    "pictures": ["a", "a.v2"],
}


@pytest.mark.parametrize(("name", "out"), [(name, out) for name, outs in OTHER_NAMES.items() for out in outs])
def test_a_name_that_says_another_format_is_refused_first(tmp_path, kept, name, out, owner):
    with pytest.raises(InputError, match=rf"{out} says .*, and the copy has the format of the set, .*: call it a"):
        open_source(kept[name].data, **kept[name].options).write(tmp_path / out, Changes())
    with pytest.raises(InputError, match=rf"{out} says"):
        dataset.mark(kept[name].data, owner, out=tmp_path / out)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "out"), [(name, out) for name, outs in SAME_NAMES.items() for out in outs])
def test_a_name_of_the_same_format_or_of_none_is_taken(tmp_path, kept, name, out):
    assert open_source(kept[name].data, **kept[name].options).write(tmp_path / out, Changes()).data == tmp_path / out


def test_a_dataset_is_written_as_a_folder(tmp_path, owner):
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})
    with pytest.raises(InputError, match=r"a.parquet says Parquet, and the copy has the format of the set, a folder"):
        dataset.mark(made, owner, out=tmp_path / "a.parquet")
    (tmp_path / "set.parquet").mkdir()
    made.to_parquet(tmp_path / "set.parquet" / "0.parquet")
    written = open_source(tmp_path / "set.parquet").write(tmp_path / "copy.parquet", Changes({0: 1}))
    assert (written.data / "0.parquet").exists()
