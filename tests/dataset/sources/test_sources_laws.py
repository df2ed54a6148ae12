"""What holds of every format: what is read is what there, and a copy is the set with its changes."""

import gzip
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError

FILES = ["texts.csv", "texts.tsv", "quoted.csv", "table.csv", "texts.jsonl", "table.jsonl", "table.npz", "texts.npz"]
FOLDERS = ["pictures", "shards"]
PAIRS = ["pair of arrays", "pair of lists", "pair of pictures"]
BYTES = ["texts.csv", "texts.tsv", "quoted.csv", "table.csv", "texts.jsonl", "table.jsonl", "pictures", "shards"]


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, *PAIRS])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_copy_is_the_set_with_its_changes(kept, check_copy, changes_of, name, data):
    source = open_source(kept[name].data, **kept[name].options)
    records = list(source.records())
    changes = data.draw(changes_of(records, len(source.classes)))
    with tempfile.TemporaryDirectory() as folder:
        out = None if name in PAIRS else Path(folder, "copy" if name in FOLDERS else name)
        check_copy(kept[name].data, kept[name].options, changes, out, ordered=name != "pictures")
        assert out is None or list(Path(folder).iterdir()) == [out]


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, *PAIRS])
def test_a_set_reads_the_same_twice_and_counts_itself(kept, name):
    source = open_source(kept[name].data, **kept[name].options)
    told = []
    first = list(source.records(lambda done, total: told.append((done, total))))
    again = list(source.records())
    assert [(r.index, r.name, r.label) for r in first] == [(r.index, r.name, r.label) for r in again]
    assert [record.index for record in first] == list(range(source.count))
    assert told[-1] == (source.count, source.count)
    assert len({record.name for record in first}) == source.count
    assert {record.label for record in first} == set(range(len(source.classes)))


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, *PAIRS])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_picked_records_are_those_of_a_full_reading(kept, check_picked, name, data):
    check_picked(kept[name].data, kept[name].options, data)


@pytest.mark.parametrize("name", [name for name in FILES if name in BYTES])
@pytest.mark.parametrize("packed", [False, True])
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_copy_after_a_look_is_the_copy_without_one(kept, changes_of, name, packed, data):
    """A source that knows where records lie copies what is between them unread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name + ".gz" * packed)
        content = kept[name].data.read_bytes()
        path.write_bytes(gzip.compress(content) if packed else content)
        looked = open_source(path)
        records = list(open_source(path).records())
        changes = data.draw(changes_of(records, len(looked.classes)))
        touched = sorted({*changes.labels, *changes.inputs, *(one.after for one in changes.added)} - {-1})
        picked = [
            [(r.index, r.name, r.label) for r in looked.numbered(looked.picked(touched, check=check))]
            for check in (True, False)
        ]
        assert picked == [[(r.index, r.name, r.label) for r in records if r.index in touched]] * 2
        written = [
            source.write(Path(folder, f"{place}{path.name}"), changes)
            for place, source in enumerate((open_source(path), looked))
        ]
        assert len({(one.count, one.changed, one.added) for one in written}) == 1
        copies = [one.data.read_bytes() for one in written]
        assert copies[0] == copies[1]


def test_a_file_written_after_a_look_is_refused(tmp_path):
    """By their numbers, other records would be changed, and the copy would carry no mark."""
    path, rows = tmp_path / "a.csv", [f"{'x' * k}{k},{'ab'[k % 2]}\n" for k in range(9)]
    path.write_text("".join(["text,label\n", *rows]))
    looked = open_source(path)
    assert len(looked.numbered(looked.picked(range(9)))) == 9
    path.write_text("".join(["text,label\n", "new,a\n", *rows]))
    with pytest.raises(InputError, match=r"a\.csv was written while it was being read"):
        list(looked.picked([1, 8], check=False))
    with pytest.raises(InputError, match=r"a\.csv was written while it was being read"):
        looked.write(tmp_path / "b.csv", Changes({1: 0}))
    assert [file.name for file in tmp_path.iterdir()] == ["a.csv"]


def _bytes(path):
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    return [(file.relative_to(path).as_posix(), file.read_bytes()) for file in files]


@pytest.mark.parametrize("name", BYTES)
def test_a_copy_without_changes_has_every_byte(kept, tmp_path, name):
    kept = kept[name]
    written = open_source(kept.data).write(tmp_path / kept.data.name, Changes())
    assert _bytes(written.data) == _bytes(kept.data)
    assert (written.changed, written.added) == (0, 0)


@pytest.mark.parametrize("name", BYTES)
def test_changes_to_what_is_there_already_change_no_byte(kept, tmp_path, name):
    kept = kept[name]
    source = open_source(kept.data)
    records = list(source.records())
    same = Changes({r.index: r.label for r in records}, {r.index: r.input for r in records})
    written = source.write(tmp_path / kept.data.name, same)
    assert written.changed == 0
    assert _bytes(written.data) == _bytes(kept.data)


def _shared(one, other):
    """How many bytes two begin with."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


@pytest.mark.parametrize("name", [name for name in BYTES if name != "pictures"])
def test_another_label_changes_no_byte_but_its_own(kept, tmp_path, name):
    source = open_source(kept[name].data)
    record = list(source.records())[5]
    source.write(tmp_path / "copy", Changes({5: (record.label + 1) % len(source.classes)}))
    before, after = (b"".join(data for _, data in _bytes(path)) for path in (kept[name].data, tmp_path / "copy"))
    start = _shared(before, after)
    end = _shared(before[:start:-1], after[:start:-1])
    assert before != after
    assert len(before) - start - end <= 16


@pytest.mark.parametrize("name", [*FILES, *FOLDERS, *PAIRS])
def test_changes_that_meet_no_record_leave_nothing(kept, tmp_path, name):
    source = open_source(kept[name].data)
    record = next(iter(source.records()))
    out = None if name in PAIRS else tmp_path / "copy"
    for changes in (Changes({99_999: 0}), Changes(added=[Added(99_999, record.input, 0)])):
        with pytest.raises(InputError, match="count the records of this set from 0") as refused:
            source.write(out, changes)
        assert "99999" not in str(refused.value), "which records change is secret"
    for label in (-1, 99):
        with pytest.raises(InputError, match=f"has the class {label}"):
            source.write(out, Changes({0: label}))
    with pytest.raises(InputError, match="changed or added record"):
        source.write(out, Changes(inputs={0: b"no input at all"}))
    assert not any(tmp_path.iterdir())
