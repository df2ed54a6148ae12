"""Sets of odd types, orders, encodings and companions: a copy is the set but for its marks, or nothing is written."""

import bz2
import codecs
import csv
import gzip
import hashlib
import io
import json
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from PIL import Image

from wmplug import dataset
from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError
from wmplug.register import assets
from wmplug.schemes.tilt import references
from wmplug.watermark.carriers import digest

EASY = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=12)
LABELS = st.sampled_from(
    [
        *(["a", "b"], ["0", "1", "2"], ["-1", "0", "1"], ["", "x"], ["n/a", "yes"], ["07", "7"], ["1.5", "2"]),
        *(["é", "ü"], ["-1", "1"], ["0", "1", "255"], ["True", "False"]),
    ]
)
OTHERS = st.sampled_from(["none", "same as label", "counts", "words", "empty"])


@st.composite
def tables(draw):
    """Columns by their names, in an order; a text or numbers, a label, and perhaps another column."""
    count, labels, other = draw(st.integers(2, 14)), draw(LABELS), draw(OTHERS)
    said = [draw(st.sampled_from(labels)) for _ in range(count)]
    inputs = draw(st.sampled_from(["text", "numbers"]))
    columns = {"label": said}
    if inputs == "text":
        columns["text"] = [draw(WORDS) for _ in range(count)]
    else:
        columns["a"] = [draw(st.floats(-1e6, 1e6).map(lambda value: round(value, 3))) for _ in range(count)]
        columns["b"] = [draw(st.integers(-5, 5)) for _ in range(count)]
    columns |= {
        "none": {},
        "same as label": {"label_text": [f"is {label}" for label in said]},
        "counts": {"nr": list(range(count))},
        "words": {"note": [draw(WORDS) for _ in range(count)]},
        "empty": {"": [""] * count},
    }[other]
    return {name: columns[name] for name in draw(st.permutations(list(columns)))}


def by_changes(path, out, data, owner):
    """Write drawn labels; the records before and after with the labels, or None if the set was refused."""
    try:
        source = open_source(path)
        before = list(source.records())
        if len(source.classes) < 2:
            return None
        chosen = data.draw(st.sets(st.integers(0, len(before) - 1), min_size=1, max_size=4))
        labels = {index: (before[index].label + 1) % len(source.classes) for index in chosen}
        source.write(out, Changes(labels))
    except InputError:
        assert not out.exists()
        assert not [file for file in out.parent.iterdir() if file.name.endswith(".part")]
        return None
    return before, list(open_source(out, classes=source.classes).records()), labels


def register_of(owner):
    return {file: file.stat().st_size for file in owner.path.rglob("*") if file.is_file()}


def by_mark(path, out, data, owner):
    """The same with the labels that the key draws, through what a user calls."""
    with pytest.MonkeyPatch.context() as patch:  # what references say of twelve records does not matter
        patch.setattr(references, "trained", lambda inputs, labels, classes: references.of_labels(labels, classes))
        told = register_of(owner)
        try:
            source = open_source(path)
            before = list(source.records())
            made = dataset.mark(path, owner, out=out, share=data.draw(st.sampled_from([0.1, 0.3, 0.5])))
        except InputError:
            event("refused")
            assert list(out.parent.iterdir()) == [path]
            assert register_of(owner) == told
            return None
    event("marked")
    triggers, labels = made.mark.triggers, {}
    for row, label in enumerate(triggers.answers.tolist()):
        (index,) = (record.index for record in before if digest(record.input) == digest(triggers.row(row)))
        labels[index] = label
    assert made.manifest["changed"] == sum(before[index].label != label for index, label in labels.items())
    assert made.manifest["dataset"]["root"] == assets.dataset(out)["root"]
    return before, list(open_source(out, classes=source.classes).records()), labels


WAYS = pytest.mark.parametrize("way", [by_changes, by_mark])


def same(one, other):
    return one == other if isinstance(one, str) else np.array_equal(np.asarray(one), np.asarray(other), equal_nan=True)


def check_records(found):
    before, after, labels = found
    assert len(after) == len(before)
    for one, two in zip(before, after, strict=True):
        assert same(one.input, two.input)
        assert two.label == labels.get(one.index, one.label)


@WAYS
@EASY
@given(table=tables(), data=st.data())
def test_csv(table, data, way, owner):
    draw, text = data.draw, io.StringIO(newline="")
    dialect = {
        "delimiter": draw(st.sampled_from(",;\t|")),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])),
        "lineterminator": draw(st.sampled_from(["\n", "\r\n"])),
    }
    csv.writer(text, **dialect).writerows([list(table), *zip(*table.values(), strict=True)])
    written = text.getvalue()
    encoded = draw(
        st.sampled_from(
            [
                written.encode(),
                codecs.BOM_UTF8 + written.encode(),
                written.encode("utf-16"),
                written.encode("utf-16-le"),
                written.encode("latin1", "replace"),
                written.encode().rstrip(b"\r\n"),
            ]
        )
    )
    suffix, pack = draw(st.sampled_from([("", bytes), (".gz", gzip.compress), (".bz2", bz2.compress)]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"set.csv{suffix}")
        path.write_bytes(pack(encoded))
        found = way(path, Path(folder, f"copy.csv{suffix}"), data, owner)
        if found:
            check_records(found)


CELLS = st.text(st.sampled_from('ab 5",\n'), max_size=8)


@WAYS
@EASY
@given(rows=st.lists(st.tuples(CELLS, st.booleans()), min_size=4, max_size=14), data=st.data())
def test_csv_with_quotes_inside_of_cells(rows, data, way, owner):
    """Written as by hand: quotes only where a cell needs them. The csv module is the judge."""
    separates, end = set(',\n"'), data.draw(st.sampled_from(["\n", "\r\n"]))
    lines = []
    for text, quoted in rows:
        bare = not quoted and not {",", "\n"} & set(text) and not text.startswith('"')
        lines.append(text if bare else '"' + text.replace('"', '""') + '"')
        assert bare or separates & set(text) or quoted
    labels = [data.draw(st.sampled_from("xy")) for _ in lines]
    written = f"text,label{end}" + "".join(f"{one},{label}{end}" for one, label in zip(lines, labels, strict=True))
    assert list(csv.reader(io.StringIO(written, newline="")))[1:] == [
        [text, label] for (text, _), label in zip(rows, labels, strict=True)
    ]
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("wmplug.dataset.sources.lines._BLOCK", data.draw(st.sampled_from([7, 1 << 20])))
        path, copy = Path(folder, "set.csv"), Path(folder, "copy.csv")
        path.write_text(written, newline="")
        found = way(path, copy, data, owner)
        if found:
            check_records(found)
            classes = open_source(path).classes
            new = [classes[found[2].get(place, found[0][place].label)] for place in range(len(lines))]
            assert copy.read_text() == written.splitlines()[0] + "\n" + "".join(
                f"{one},{label}\n" for one, label in zip(lines, new, strict=True)
            ), "another byte than those of labels changed"


@EASY
@given(data=st.data())
def test_added_lines_of_json_are_written_as_those_beside_them(data):
    draw = data.draw
    space, keys = st.sampled_from(["", " ", "  ", "\t"]), draw(st.permutations(["text", "label"]))
    notations = [[draw(space) for _ in range(8)] for _ in range(draw(st.integers(1, 2)))]
    which = [draw(st.sampled_from(notations)) for _ in range(draw(st.integers(4, 9)))]

    def line(spaces, text, label):
        cells = {"text": json.dumps(text), "label": json.dumps(label)}
        parts = [
            f"{spaces[i]}{json.dumps(key)}{spaces[i + 2]}:{spaces[i + 4]}{cells[key]}" for i, key in enumerate(keys)
        ]
        return "{" + f"{spaces[6]},".join(parts) + spaces[7] + "}"

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "set.jsonl")
        path.write_text("".join(line(one, f"t{i}", "ab"[i % 2]) + "\n" for i, one in enumerate(which)))
        after = [draw(st.integers(-1, len(which) - 1)) for _ in range(2)]
        added = [Added(place, f"new {i}", i) for i, place in enumerate(after)]
        written = open_source(path).write(Path(folder, "copy.jsonl"), Changes(added=added)).data.read_text()
        expected = [line(one, f"t{i}", "ab"[i % 2]) for i, one in enumerate(which)]
        for i, place in sorted(enumerate(after), key=lambda one: (-one[1], -one[0])):
            expected.insert(place + 1, line(which[max(place, 0)], f"new {i}", "ab"[i]))
        assert written.splitlines() == expected


VALUES = [[0, 1], [-1, 1], [False, True], [0, 1, 2], ["a", "b"], [0, 1, 255]]


@EASY
@given(data=st.data())
def test_arrays(data):
    draw = data.draw
    count, values = draw(st.integers(4, 90)), draw(st.sampled_from(VALUES))
    labels = [draw(st.sampled_from(values)) for _ in range(count)]
    labels = sorted(labels) if draw(st.integers(0, 3)) == 0 else labels
    truth = np.array([values.index(label) for label in labels])
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    scores = rng.uniform(size=(count, len(values)))
    right = scores.copy()
    right[np.arange(count), truth] += 1
    beside = draw(st.sampled_from(["nothing", "scores", "right", "objects"]))
    arrays = {"scores": scores, "right": right, "objects": np.array([None] * count)}
    more = {} if beside == "nothing" else {beside: arrays[beside]}
    with tempfile.TemporaryDirectory() as folder:
        path, copy = Path(folder, "set.npz"), Path(folder, "copy.npz")
        np.savez(path, x=rng.normal(size=(count, 3)), y=np.array(labels), **more)
        found = by_changes(path, copy, data, None)
        sorted_by_label = count >= 40 and labels == sorted(labels) and min(np.bincount(truth)[np.unique(truth)]) > 1
        if found:
            check_records(found)
            held = np.load(copy)
            assert held["y"].dtype == np.array(labels).dtype
            assert {*held["y"].tolist()} <= {*values} or {*labels} < {*values}  # then others are classes too
            assert beside != "objects"
            assert not sorted_by_label
            assert beside != "right" or min(count, count - np.bincount(truth).max()) < 20


@WAYS
@EASY
@given(table=tables(), data=st.data())
def test_json_lines(table, data, way, owner):
    draw = data.draw
    lines = [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]
    if draw(st.booleans()):
        lines[draw(st.integers(0, len(lines) - 1))].pop(draw(st.sampled_from(list(table))))
    if draw(st.booleans()):
        lines[draw(st.integers(0, len(lines) - 1))]["label"] = draw(st.sampled_from([None, 1, True, [1], "a"]))
    style = draw(st.sampled_from([{}, {"ensure_ascii": False}, {"separators": (",", ":")}]))
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
    text = "".join(json.dumps(line, **style) + draw(st.sampled_from(["\n", "\r\n", "\n\n"])) for line in lines)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "set.jsonl").write_bytes(text.encode(encoding))
        found = way(Path(folder, "set.jsonl"), Path(folder, "copy.jsonl"), data, owner)
        if found:
            check_records(found)


TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
TYPES += [pa.binary(), pa.large_binary(), pa.binary_view()]


@WAYS
@EASY
@given(table=tables(), data=st.data())
def test_parquet(table, data, way, owner):
    draw, arrays = data.draw, {}
    for name, values in table.items():
        array = pa.array(values)
        if pa.types.is_string(array.type):
            if name == "label" and all(value.lstrip("-").isdecimal() for value in values) and draw(st.booleans()):
                array = pa.array(
                    [int(value) for value in values], draw(st.sampled_from([pa.int16(), pa.int64(), pa.float64()]))
                )
            else:
                array = array.cast(draw(st.sampled_from(TYPES)))
        if draw(st.integers(0, 5)) == 0:
            array = pa.array([None, *array.to_pylist()[1:]], array.type)
        arrays[name] = array
    options = {"row_group_size": draw(st.integers(1, 6)), "compression": draw(st.sampled_from(["none", "zstd"]))}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "set")
        root.mkdir()
        notes = []
        pq.write_table(pa.table(arrays), root / "0.parquet", metadata_collector=notes, **options)
        if draw(st.booleans()):
            notes[-1].set_file_path("0.parquet")
            pq.write_metadata(pa.table(arrays).schema, root / "_metadata", metadata_collector=notes)
        sums = draw(st.booleans())
        if sums:
            (root / "SHA256SUMS").write_text(
                hashlib.sha256((root / "0.parquet").read_bytes()).hexdigest() + "  0.parquet\n"
            )
        copy = Path(folder, "copy")
        found = way(root, copy, data, owner)
        if found:
            check_records(found)
            whole, given = pq.read_table(copy / "0.parquet"), pa.table(arrays)
            assert whole.schema == given.schema
            assert [whole[name].to_pylist() for name in given.schema.names if name != "label"] == [
                given[name].to_pylist() for name in given.schema.names if name != "label"
            ]
            if (root / "_metadata").exists():
                group = pq.read_metadata(copy / "_metadata").row_group(0).column(0)
                assert (
                    group.data_page_offset
                    == pq.read_metadata(copy / "0.parquet").row_group(0).column(0).data_page_offset
                )
            if sums:
                assert (copy / "SHA256SUMS").read_text().split() == [
                    hashlib.sha256((copy / "0.parquet").read_bytes()).hexdigest(),
                    "0.parquet",
                ]


@st.composite
def pictures(draw):
    """Names and files of small pictures, and what lies beside them."""
    classes = draw(st.sampled_from([("a", "b"), ("cat", "dog", "unsup"), ("0", "1"), ("10", "9")]))
    count = draw(st.integers(4, 12))
    names, files = [], {}
    for number in range(count):
        kind = draw(st.sampled_from(["png", "jpg", "bmp"]))
        stem = draw(st.sampled_from([f"{number:03d}", f"{number}", "same", f"in/{number}"]))
        name = f"{classes[number % len(classes)]}/{stem}.{kind}"
        if name not in files:
            data = io.BytesIO()
            pixels = np.full((4, 4, 3), number * 9, np.uint8)
            Image.fromarray(pixels).save(data, {"png": "PNG", "jpg": "JPEG", "bmp": "BMP"}[kind])
            names.append(name)
            files[name] = data.getvalue()
    order = draw(st.sampled_from([sorted(names), names, names[::-1], draw(st.permutations(names))]))
    lists = {
        "list": "".join(f"{name}\n" for name in order),
        "labels": "path,label\n" + "".join(f"{name},{name.partition('/')[0]}\n" for name in order),
        "numbers": "".join(f"{name} {classes.index(name.partition('/')[0])}\n" for name in order),
        "md5": "".join(f"{hashlib.md5(files[name]).hexdigest()}  {name}\n" for name in order),
        "captions": "".join(f"{name}\t{draw(st.sampled_from(['nice', 'a cat', 'dog 1']))}\n" for name in order),
        "half": "".join(f"{name}\n" for name in order[::2]),
        "stems": "".join(f"{Path(name).stem}\n" for name in order),
        "about": "pictures",
    }
    for kind in draw(st.sets(st.sampled_from(list(lists)), max_size=2)):
        files["README" if kind == "about" else f"{kind}.txt"] = lists[kind].encode()
    return names, files


@WAYS
@EASY
@given(made=pictures(), data=st.data())
def test_folders_of_pictures(made, data, way, owner):
    _, files = made
    with tempfile.TemporaryDirectory() as folder:
        root, copy = Path(folder, "set"), Path(folder, "copy")
        for name, content in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(content)
        found = way(root, copy, data, owner)
        if not found:
            return
        before, after, labels = found
        key = lambda record: (np.asarray(record.input).tobytes(), Path(record.name).suffix)  # noqa: E731
        classes = open_source(root).classes
        old = sorted((key(one), labels.get(one.index, one.label)) for one in before)
        assert sorted((key(one), one.label) for one in after) == old
        there = {record.name: record for record in after}
        listed = {one: (copy / one).read_text().splitlines() for one in files if one.endswith(".txt")}
        for one, lines in listed.items():
            lines = lines[1:] if one == "labels.txt" else lines
            assert len(lines) == len(files[one].decode().splitlines()) - (one == "labels.txt")
            for line in lines:
                if one == "stems.txt":
                    assert line in {Path(name).stem for name in there}
                    continue
                name = (
                    line.split("  ")[1] if one == "md5.txt" else line.replace("\t", ",").replace(" ", ",").split(",")[0]
                )
                assert name in there, "a list names a place where no picture is"
                if one == "labels.txt":
                    assert line.endswith(f",{classes[there[name].label]}")
                if one == "md5.txt":
                    assert line.startswith(hashlib.md5((copy / name).read_bytes()).hexdigest())
                if one == "numbers.txt":
                    assert name.partition("/")[0] == classes[there[name].label]


@WAYS
@EASY
@given(data=st.data())
def test_shards(data, way, owner):
    draw = data.draw
    count, labels = draw(st.integers(2, 8)), draw(st.sampled_from([["0", "1"], ["a", "bb"], ["n/a", "x"]]))
    form, suffix = draw(st.sampled_from(["txt", "npy"])), draw(st.sampled_from(["tar", "tar.gz", "tgz"]))
    in_json, file = draw(st.booleans()), io.BytesIO()
    with tarfile.open(
        fileobj=file, mode="w:" if suffix == "tar" else "w:gz", format=draw(st.sampled_from([0, 1, 2]))
    ) as tar:
        for number in range(count):
            label, array = draw(st.sampled_from(labels)), io.BytesIO()
            np.save(array, np.full(3, number))
            parts = {form: array.getvalue() if form == "npy" else f"text {number}".encode()}
            if draw(st.integers(0, 9)):
                parts["json" if in_json else "cls"] = (
                    json.dumps({"label": label}).encode() if in_json else label.encode()
                )
            for ending, content in parts.items():
                info = tarfile.TarInfo(f"{number:04d}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    with tempfile.TemporaryDirectory() as folder:
        root, copy = Path(folder, "set"), Path(folder, "copy")
        root.mkdir()
        shard = root / f"0.{suffix}"
        shard.write_bytes(file.getvalue())
        beside = draw(st.sampled_from(["nothing", "index", "idx"]))
        if beside == "index":
            facts = {
                "url": shard.name,
                "size": shard.stat().st_size,
                "md5": hashlib.md5(shard.read_bytes()).hexdigest(),
            }
            (root / "index.json").write_text(json.dumps([facts]))
        if beside == "idx":
            (root / "0.idx").write_text("v1.2 1\ntxt 512 6 0000.txt\n")
        found = way(root, copy, data, owner)
        if found:
            assert beside != "idx"
            check_records(found)
            if beside == "index":
                (facts,), new = json.loads((copy / "index.json").read_text()), copy / shard.name
                assert facts["md5"] == hashlib.md5(new.read_bytes()).hexdigest()
                assert facts["size"] == new.stat().st_size
