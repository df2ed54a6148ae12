"""What a column means is found by rules that can be told, and asked for where a rule could be wrong."""

import json
import struct
import zipfile
from contextlib import nullcontext

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError


def _labels(path, **options):
    source = open_source(path, **options)
    return [source.classes[record.label] for record in source.records()]


def _text_set(folder, name, labels):
    """A set of texts with these labels, in the format of the name."""
    texts = [f"text {row}" for row in range(len(labels))]
    path = folder / name
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"text": texts, "label": labels}), path, row_group_size=3)
    elif path.suffix == ".csv":
        path.write_text("text,label\n" + "".join(f"{a},{b}\n" for a, b in zip(texts, labels, strict=True)))
    elif path.suffix == ".jsonl":
        rows = zip(texts, labels, strict=True)
        path.write_text("".join(json.dumps({"text": a, "label": b}) + "\n" for a, b in rows))
    else:
        np.savez(path, x=np.array(texts), y=np.array(labels))
    return path


FORMATS = ["a.parquet", "a.csv", "a.jsonl", "a.npz"]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("labels", "odd"),
    [
        ([0, 1, -1, 1], "-1"),
        ([1, 2, 3, -100], "-100"),
        ([0, 1, 2, 255], "255"),
        ([1, 2, 99, 3, 1], "99"),
        ([999, *range(10)], "999"),
        ([0, 99, 0], "99"),
        (["a", "b", "N/A", "a"], "N/A"),
        (["a", "none", "b"], "none"),
    ],
)
def test_a_label_that_may_mean_none_is_refused_until_all_classes_are_named(tmp_path, name, labels, odd):
    path = _text_set(tmp_path, name, labels)
    with pytest.raises(InputError, match=rf"has the label '?{odd}'? \(the labels are .*--classes"):
        list(open_source(path).records())
    with pytest.raises(InputError, match="which can be a class or mean that nobody labelled it"):
        list(open_source(path).picked([0]))
    assert _labels(path, classes=sorted({*map(str, labels)})) == [*map(str, labels)]


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "labels",
    [[-1, 1, 1], [-2, -1, 0, 1, 2], ["none", "none"], [0, 1, 2], [0, 1, 5], [3, 700], [*range(60), 99], [2, 255]],
)
def test_labels_that_are_clear_are_classes(tmp_path, name, labels):
    assert _labels(_text_set(tmp_path, name, labels)) == [*map(str, labels)]


def test_class_folders_of_what_nobody_labelled_are_refused(tmp_path, pictures):
    for name in ("neg", "pos", "unsup"):  # as of reviews by aclImdb
        (tmp_path / "set" / name).mkdir(parents=True)
        pictures[0][0].save(tmp_path / "set" / name / "0.png")
    with pytest.raises(InputError, match=r"unsup/0\.png has the label 'unsup'"):
        _ = open_source(tmp_path / "set").classes


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl"])
@pytest.mark.parametrize("labels", [[None] * 3 + [0, 1] * 3, [0, 1] * 3 + [None] * 3, [0, None, 1]])
def test_missing_labels_are_refused_whatever_the_order(tmp_path, name, labels):
    path, row = _text_set(tmp_path, name, labels), labels.index(None)
    why = rf"{name}, {'row' if path.suffix == '.parquet' else 'line'} {row + (path.suffix == '.jsonl')} has no label"
    with pytest.raises(InputError, match=why):
        _ = open_source(path).classes
    with pytest.raises(InputError, match=why):
        list(open_source(path).picked([0]))
    with pytest.raises(InputError, match=why):
        list(open_source(path, classes=["0", "1"]).records())


def test_a_column_of_nothing_but_missing_labels_labels_nothing(tmp_path):
    source = open_source(_text_set(tmp_path, "a.parquet", pa.nulls(9, pa.int64())))
    assert source.classes == ()
    assert [record.label for record in source.records()] == [None] * 9


def test_keys_are_those_of_many_objects_and_not_of_the_first(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b", "label": 1}\n{"text": "c", "label": 0}\n')
    with pytest.raises(InputError, match=r"a.jsonl, line 1 has no label, and other records have one"):
        open_source(path)
    path.write_text('{"text": "a"}\n' * 200 + '{"text": "b", "label": 1}\n')
    with pytest.raises(InputError, match=r"line 201 has a label, and the first 100 records have none"):
        list(open_source(path).records())


def test_an_index_of_pandas_is_no_number_to_learn_from(tmp_path):
    frame = pd.DataFrame({"a": [1.5, 2.5, 3.5] * 4, "b": [3.0, 2.0, 7.0] * 4, "label": [0, 1, 0] * 4})
    frame.sample(frac=1, random_state=0).to_parquet(tmp_path / "a.parquet")
    frame.set_index(pd.Index([7, 3, 5, 1, 9, 2, 4, 6, 8, 0, 11, 10], name="row")).to_parquet(tmp_path / "named.parquet")
    frame.to_csv(tmp_path / "a.csv")
    for name, index in (("a.parquet", "__index_level_0__"), ("named.parquet", "row"), ("a.csv", "")):
        source = open_source(tmp_path / name)
        assert {record.input.shape for record in source.records()} == {(2,)}
        roles = {taken.part: taken.role for taken in source.taken}
        assert roles == {"a": "numbers", "b": "numbers", "label": "label", index: "index, left as it is"}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("name", ["id", "patient_id", "first"])
def test_numbers_that_name_or_count_the_rows_are_refused_until_they_are_named(tmp_path, suffix, name):
    path = tmp_path / f"a{suffix}"
    table = pa.table({name: range(5, 17), "x": [0.5, 1.5, 0.25] * 4, "label": [0, 1, 0] * 4})
    if suffix == ".parquet":
        pq.write_table(table, path)
    elif suffix == ".csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        table.to_pandas().to_json(path, orient="records", lines=True)
    with pytest.raises(InputError, match=rf"the column {name} of .* (identifier|counts the rows).*--columns"):
        list(open_source(path).records())
    assert [len(record.input) for record in open_source(path, columns=["x"]).records()] == [1] * 12
    assert [len(record.input) for record in open_source(path, columns=[name, "x"]).records()] == [2] * 12


def test_several_columns_of_pictures_are_asked_about(tmp_path, pictures, encoded):
    cells = [{"bytes": encoded(picture), "path": None} for picture in pictures[0][:4]]
    features = datasets.Features(
        {"image": datasets.Image(), "mask": datasets.Image(), "label": datasets.Value("int64")}
    )
    made = datasets.Dataset.from_dict({"image": cells, "mask": cells, "label": [0, 1, 0, 1]}, features=features)
    with pytest.raises(InputError, match=r"several columns of pictures \(image, mask\): name the one"):
        open_source(made)
    assert open_source(made, columns=["mask"]).form == "pil"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_are_not_changed_beside_columns_that_repeat_them(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    frame = pd.DataFrame({"text": [f"t{i}" for i in range(12)], "label": [0, 1] * 6, "label_text": ["no", "yes"] * 6})
    frame["source"] = ["web", "book", "web"] * 4
    save(frame, path)
    with pytest.raises(InputError, match="repeats the label in label_text, which would show every label"):
        open_source(path).write(tmp_path / f"copy{suffix}", Changes({1: 0}))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    written = open_source(path).write(tmp_path / f"copy{suffix}", Changes(inputs={1: "new"}))
    assert written.changed == 1


def save(frame, path):
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)


def leaking(beside, count=300):
    """A set whose column `beside` tells the label, from its number and its label."""
    labels = np.random.default_rng(0).integers(0, 3, count)
    texts, told = [f"t{i}" for i in range(count)], list(map(beside, range(count), labels))
    return pd.DataFrame({"text": texts, "label": labels, "beside": told})


TELLING = {
    "a finer class": lambda number, label: "abcdef"[2 * label + number % 2],
    "one class alone": lambda number, label: label == 1,
    "its folder": lambda number, label: f"{'abc'[label]}/{number}.txt",
    "with gaps": lambda number, label: "abc"[label] if number % 40 else "",
}
SILENT = {
    "another thing": lambda number, label: "abcdef"[number % 6],
    "a number": lambda number, label: number,
    "its name": lambda number, label: f"{number:04d}.txt",
    "a hint": lambda number, label: "abc"[label] if number % 3 else "b",
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("how", TELLING | SILENT)
def test_what_tells_the_label_beside_it_is_refused(tmp_path, suffix, how):
    path, frame = tmp_path / f"a{suffix}", leaking((TELLING | SILENT)[how])
    save(frame, path)
    refused = pytest.raises(InputError, match="repeats the label in beside, which") if how in TELLING else nullcontext()
    with refused:
        open_source(path).write(tmp_path / f"copy{suffix}", Changes({1: 0}))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_that_follow_each_other_are_refused_wherever_they_begin(tmp_path, suffix):
    """The first rows have one label: a look at them alone would find nothing."""
    path, frame = tmp_path / f"a{suffix}", leaking(lambda number, label: "abc"[label]).sort_values("label")
    save(frame, path)
    with pytest.raises(
        InputError, match=r"repeats the label in beside, the order of its records, .* of the set and shuffle it, or"
    ):
        open_source(path).write(tmp_path / f"copy{suffix}", Changes({1: 0}))


def test_a_cell_is_quoted_as_its_own_row_has_it(tmp_path):
    rows = [f"t{i},{'ab'[i % 2]}" if i < 9 else f'"t{i}","{"ab"[i % 2]}"' for i in range(18)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *rows, ""]))
    written = open_source(tmp_path / "a.csv").write(tmp_path / "b.csv", Changes({2: 1, 12: 1}))
    lines = written.data.read_text().splitlines()
    assert (lines[3], lines[13]) == ("t2,b", '"t12","b"')


def test_a_value_is_escaped_as_its_own_record_or_as_most(tmp_path):
    plain = [json.dumps({"text": f"t{i}", "label": "ab"[i % 2]}) for i in range(120)]
    kept = [json.dumps({"text": f"ä{i}", "label": "é"}, ensure_ascii=i % 20 == 0) for i in range(1, 100)]
    path = tmp_path / "a.jsonl"
    last = '{"text": "t", "label": "è"}'
    path.write_text("\n".join([*plain, *kept, last, ""]), encoding="utf-8")
    looked = open_source(path)
    assert len(looked.numbered(looked.picked(range(220)))) == 220
    assert looked.classes == ("a", "b", "è", "é")
    changes = Changes({5: 2, 139: 2, 140: 2})
    lines = looked.write(tmp_path / "b.jsonl", changes).data.read_text("utf-8").splitlines()
    assert [lines[place].partition("label")[2] for place in (5, 139, 140)] == ['": "è"}', '": "\\u00e8"}', '": "è"}']


def test_what_was_taken_for_what_is_told(kept):
    told = {taken.part: (taken.role, taken.why) for taken in open_source(kept["texts.csv"].data).taken}
    assert told == {"text": ("text", "it is called text"), "label": ("label", "it is called label")}
    named = open_source(kept["texts.jsonl"].data, text="text", label="label").taken
    assert {taken.why for taken in named} == {"you named it"}


def _zip_with_flag(path, flag):
    data = bytearray(path.read_bytes())
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = -1
        while (at := data.find(signature, at + 1)) >= 0:
            struct.pack_into("<H", data, at + place, struct.unpack_from("<H", data, at + place)[0] | flag)
    path.write_bytes(data)


def test_what_a_library_raises_is_translated_and_its_cause_kept(tmp_path):
    np.savez(tmp_path / "locked.npz", x=np.zeros((4, 2)), y=np.array([0, 1, 0, 1]))
    _zip_with_flag(tmp_path / "locked.npz", 1)
    with pytest.raises(InputError, match=r"locked.npz is damaged at .* encrypted") as refused:
        open_source(tmp_path / "locked.npz")
    assert isinstance(refused.value.__cause__, RuntimeError)
    with zipfile.ZipFile(tmp_path / "odd.npz", "w") as made:
        made.writestr("x.npy", b"no array")
    with pytest.raises(InputError, match=r"odd\.npz is damaged") as refused:
        open_source(tmp_path / "odd.npz")
    assert isinstance(refused.value.__cause__, ValueError)
    dates = pa.array([2**60] * 4, pa.timestamp("us"))
    pq.write_table(pa.table({"text": ["a"] * 4, "label": dates}), tmp_path / "dates.parquet")
    with pytest.raises(InputError, match=r"dates.parquet has labels or inputs that Python cannot hold") as refused:
        list(open_source(tmp_path / "dates.parquet").records())
    assert isinstance(refused.value.__cause__, (OverflowError, ValueError))


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
@pytest.mark.parametrize("beside", [pa.binary_view(), pa.list_(pa.int8()), pa.map_(pa.string(), pa.int8()), pa.null()])
def test_rows_of_any_type_are_written_again(tmp_path, kind, beside):
    values = {pa.binary_view(): b"a", pa.list_(pa.int8()): [1, 2], pa.map_(pa.string(), pa.int8()): [("a", 1)]}
    other = pa.array([values.get(beside)] * 9, beside)
    table = pa.table({"text": pa.array([f"t{i}" for i in range(9)]).cast(kind), "label": [0, 1, 0] * 3, "o": other})
    pq.write_table(table, tmp_path / "a.parquet")
    written = open_source(tmp_path / "a.parquet").write(tmp_path / "o.parquet", Changes({0: 1}, {4: "new"}))
    before, after = (pq.read_table(path) for path in (tmp_path / "a.parquet", written.data))
    texts, labels = before["text"].to_pylist(), before["label"].to_pylist()
    texts[4], labels[0] = "new", 1
    assert (after["text"].to_pylist(), after["label"].to_pylist()) == (texts, labels)
    assert after["o"].to_pylist() == before["o"].to_pylist()
    assert after.schema == before.schema


BYTES = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.dictionary(pa.int8(), pa.string())]


@pytest.mark.parametrize("kind", BYTES, ids=str)
@pytest.mark.parametrize("name", ["text", "words"])
def test_columns_of_bytes_that_are_texts_are_read_as_such(tmp_path, kind, name):
    texts, labels = [f"é{i}" for i in range(9)], [["ja", "nö"][i % 2] for i in range(9)]
    made = pa.table({name: pa.array(texts).cast(kind), "label": pa.array(labels).cast(kind)})
    pq.write_table(made, tmp_path / "a.parquet", row_group_size=4)
    source = open_source(tmp_path / "a.parquet", text=None if name == "text" else name)
    assert [(record.input, source.classes[record.label]) for record in source.records()] == [
        *zip(texts, labels, strict=True)
    ]
    after = pq.read_table(source.write(tmp_path / "b.parquet", Changes({0: 1}, {4: "nü"})).data)
    assert after.schema == made.schema
    labels[0], texts[4] = "nö", "nü"
    assert [*map(as_text, after["label"].to_pylist())] == labels
    assert [*map(as_text, after[name].to_pylist())] == texts


def as_text(cell):
    return cell.decode() if isinstance(cell, bytes) else cell


@pytest.mark.parametrize("column", ["text", "label"])
def test_bytes_that_are_no_texts_are_refused_with_their_row(tmp_path, column):
    cells = {"text": [f"t{i}".encode() for i in range(150)], "label": [b"ab"[i % 2 : i % 2 + 1] for i in range(150)]}
    cells[column][120] = b"caf\xe9"
    pq.write_table(
        pa.table({name: pa.array(found, pa.binary()) for name, found in cells.items()}), tmp_path / "a.parquet"
    )
    with pytest.raises(InputError, match=r"a.parquet, row 120 is not UTF-8 \(byte 0xe9 .*: save the column as texts"):
        list(open_source(tmp_path / "a.parquet").records())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize(
    ("names", "advice"),
    [
        (("sentence", "target"), r"text='sentence', label='target' (--text sentence --label target)"),
        (("a sentence", "label"), r"text='a sentence' (--text 'a sentence')"),
        (("label", "review"), r"text='review' (--text review)"),
    ],
)
def test_columns_of_texts_with_other_names_are_to_be_named(tmp_path, suffix, names, advice):
    rows = [(f"a longer text {i}", i % 2) for i in range(20)]
    frame = pd.DataFrame([row if names[0] != "label" else row[::-1] for row in rows], columns=list(names))
    save(frame, tmp_path / f"a{suffix}")
    with pytest.raises(InputError) as refused:
        open_source(tmp_path / f"a{suffix}")
    assert f"has the columns {names[0]}, {names[1]}, of which" in str(refused.value)
    assert f"name yours, such as {advice}, or the columns of numbers with columns= (--columns)" in str(refused.value)
    options = dict(part.split("=") for part in advice.partition(" (")[0].split(", "))
    named = {option: name.strip("'") for option, name in options.items()}
    assert len(list(open_source(tmp_path / f"a{suffix}", **named).records())) == 20
