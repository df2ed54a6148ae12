"""Files that are written in unusual ways: they read as they are meant, and what stays keeps its bytes."""

import csv
import io
import json
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import delimited, lines, open_source
from wmplug.dataset.sources.jsonlines import values_in
from wmplug.dataset.sources.pictures import read_picture, write_like
from wmplug.errors import InputError

BOM = b"\xef\xbb\xbf"
ROWS = [("one", "x"), ('two, "quoted"\nand more', "y"), ("", "x"), ("four;|\t", "y")]


def _read(path, **options):
    source = open_source(path, **options)
    return [(record.input, source.classes[record.label]) for record in source.records()]


FAST = ["pyarrow", "msgspec"]


@pytest.fixture(params=["as installed", "without libraries"])
def reader(request, monkeypatch):
    """Blocks are read by libraries where there are some, and by csv and json elsewhere: both say the same."""
    if request.param == "without libraries":
        for name in FAST:
            monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("bom", [b"", BOM])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_marks_line_ends_quotes_and_delimiters_stay(tmp_path, bom, end, delimiter):
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows([("text", "label"), *ROWS])
    (tmp_path / "a.csv").write_bytes(bom + file.getvalue().encode())
    assert _read(tmp_path / "a.csv") == ROWS
    changes = Changes({1: 0}, added=[Added(-1, "first", 0), Added(3, "last\nline", 1)])
    written = open_source(tmp_path / "a.csv").write(tmp_path / "b.csv", changes)
    changed = [("first", "x"), ROWS[0], (ROWS[1][0], "x"), *ROWS[2:], ("last\nline", "y")]
    assert _read(written.data) == changed
    file = io.StringIO(newline="")
    csv.writer(file, delimiter=delimiter, lineterminator=end).writerows([("text", "label"), *changed])
    assert written.data.read_bytes() == bom + file.getvalue().encode()


def test_a_mark_before_json_lines_stays_in_front(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(BOM + b'{"text": "a", "label": 0}\r\n \r\n{"text": "b", "label": 1}')
    written = open_source(tmp_path / "a.jsonl").write(
        tmp_path / "b.jsonl", Changes({1: 0}, added=[Added(-1, "first", 1), Added(1, "last", 1)])
    )
    assert written.data.read_bytes() == (
        BOM + b'{"text": "first", "label": 1}\r\n{"text": "a", "label": 0}\r\n \r\n{"text": "b", "label": 0}\n'
        b'{"text": "last", "label": 1}\n'
    )


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet='a1,"\n\r .', max_size=30))
def test_blocks_read_as_line_by_line_or_not_at_all(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "a.csv"
    path.write_bytes(b"text,label\nfirst,x\n" + text.encode())
    assert _outcome(path, False) == _outcome(path, True)


def _outcome(path, without):
    """What is read, or the message; without the libraries that read blocks."""
    with pytest.MonkeyPatch.context() as patch:
        for name in FAST if without else ():
            patch.setitem(sys.modules, name, None)
        try:
            return [(np.asarray(read).tolist(), label) for read, label in _read(path)]
        except InputError as error:
            return str(error)


KINDS = {int: st.integers(-3, 3), float: st.floats(allow_nan=False), str: st.text(max_size=3), bool: st.booleans()}
KINDS[list] = st.lists(st.one_of(KINDS[int], KINDS[float]), min_size=2, max_size=2)


@settings(max_examples=150, deadline=None)
@given(
    inputs=st.sampled_from(
        [{"text": "a"}, {"one": 1, "two": 2}, {"one": 1, "two": 2.5}, {"one": 1, "two": True}, {"all": [1, 2]}]
    ),
    label=st.sampled_from([1, "x", True]),
    data=st.data(),
)
def test_blocks_of_objects_read_as_line_by_line(tmp_path_factory, inputs, label, data):
    first = {**inputs, "label": label, "id": 7}
    records = st.fixed_dictionaries({key: KINDS[type(value)] for key, value in first.items()})
    odd = st.dictionaries(st.sampled_from(list(first)), st.one_of(st.none(), *KINDS.values()))
    lines = [first, *data.draw(st.lists(records, max_size=5)), *data.draw(st.lists(odd, max_size=1))]
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    assert _outcome(path, False) == _outcome(path, True)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(), st.floats(allow_subnormal=False)), min_size=1, max_size=20))
def test_numbers_are_read_to_the_last_digit(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("numbers") / "a.csv"
    path.write_text("a,b,label\n" + "".join(f"{a!r},{b!r},x\n" for a, b in rows))
    np.testing.assert_array_equal([record.input for record in open_source(path).records()], rows)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"price": 4.40, "text": "a", "label": "x"}', '{"price": 4.40, "text": "a", "label": "y"}'),
        ('{"e": 1E5, "f":1e400, "label":"x", "text":"a"}  ', '{"e": 1E5, "f":1e400, "label":"y", "text":"a"}  '),
        ('{"id": 1, "id": 44, "label": "x","text": "a"}', '{"id": 1, "id": 44, "label": "y","text": "a"}'),
        ('{"label": "zzz", "text": "a", "label": "x"}', '{"label": "zzz", "text": "a", "label": "y"}'),
        (' { "text" : "\\u0061}{\\"" , "label" : "x" , "o":[{}, {"label": "x"}]}',
         ' { "text" : "\\u0061}{\\"" , "label" : "y" , "o":[{}, {"label": "x"}]}'),
    ],
)  # fmt: skip
def test_of_a_changed_object_the_rest_keeps_its_bytes(tmp_path, line, expected):
    other = '{"text": "b", "label": "y"}\r\n'
    (tmp_path / "a.jsonl").write_bytes((other + line + "\n" + other).encode())
    written = open_source(tmp_path / "a.jsonl").write(tmp_path / "b.jsonl", Changes({1: 1, 2: 1}))
    assert written.data.read_bytes().decode() == other + expected + "\n" + other
    assert written.changed == 1


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@given(
    cells=st.dictionaries(st.text(max_size=5), JSON, max_size=5),
    style=st.sampled_from([{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (" ,", " :  ")}]),
)
def test_values_stand_where_they_are_said_to(cells, style):
    text = json.dumps(cells, **style)
    found = {key: json.loads(text[start:end]) for key, (start, end) in values_in(text).items()}
    assert json.dumps(found) == json.dumps(cells)


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("name", ["a.jsonl", "a.csv"])
def test_a_line_that_is_no_utf8_is_named_wherever_it_is_wrong(tmp_path, name):
    line, head = b'{"text": "a", "label": "x", "o": "%s"}\n', b""
    if name == "a.csv":
        line, head = b"a,x,%s\n", b"text,label,note\n"
    (tmp_path / name).write_bytes(head + line % b"ok" + line % b"\xe9" + line % b"ok")
    with pytest.raises(InputError, match=rf"{name}, line {3 if head else 2} is not UTF-8"):
        _read(tmp_path / name)


@pytest.mark.usefixtures("reader")
def test_an_object_over_two_lines_is_refused(tmp_path):
    lines = ['{"text": "a", "label": 0}', '{"text": "b", "label": 1} {"text": "c",', '"label": 1}', ""]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    with pytest.raises(InputError, match="line 2 is not JSON"):
        _read(tmp_path / "a.jsonl")


@pytest.mark.usefixtures("reader")
@pytest.mark.parametrize("cells", [('"a": 1, "b": 2', '"a": 1.5, "b": 2'), ('"a": [1, 2]', '"a": [1.5, 2]')])
def test_whole_numbers_and_others_make_rows_of_one_kind(tmp_path, cells):
    (tmp_path / "a.jsonl").write_text("".join(f'{{{one}, "label": {i}}}\n' for i, one in enumerate(cells)))
    rows = [record.input for record in open_source(tmp_path / "a.jsonl").records()]
    assert {row.dtype for row in rows} == {np.dtype(float)}
    np.testing.assert_array_equal(rows, [[1, 2], [1.5, 2]])


def test_blocks_end_between_records_wherever_they_are_cut(monkeypatch, tmp_path):
    rows = [(f'{"x" * (k % 7)}"{k}"\n,', "ab"[k % 2]) for k in range(40)]
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    for size in (1, 64):
        monkeypatch.setattr("wmplug.dataset.sources.lines._BLOCK", size)
        assert _read(tmp_path / "a.csv") == rows
        with monkeypatch.context() as short:
            short.setattr("wmplug.dataset.sources.lines._SHORT", -1)
            assert open_source(tmp_path / "a.csv").counted() == len(rows)
        written = open_source(tmp_path / "a.csv").write(tmp_path / f"{size}.csv", Changes())
        assert written.data.read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_a_jpeg_of_another_class_keeps_its_bytes_and_a_changed_one_its_quality(tmp_path, pictures):
    for number, (picture, label) in enumerate(zip(*pictures, strict=True)):
        (tmp_path / "set" / label).mkdir(parents=True, exist_ok=True)
        picture.save(tmp_path / "set" / label / f"{7 * number % 24}.jpg", quality=60 + number)
    source = open_source(tmp_path / "set")
    before = list(source.records())
    new = before[3].input.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    written = source.write(tmp_path / "copy", Changes({0: 1}, {3: new}))
    moved, changed = (before[place].name for place in (0, 3))
    place = written.data / "flower" / moved.partition("/")[2]
    assert place.read_bytes() == (tmp_path / "set" / moved).read_bytes()
    assert not (written.data / moved).exists()
    with Image.open(tmp_path / "set" / changed) as old, Image.open(written.data / changed) as copy:
        assert copy.quantization == old.quantization
        assert np.abs(np.asarray(copy, float) - np.asarray(new, float)).mean() < 8
    assert place.stat().st_mtime == (tmp_path / "set" / moved).stat().st_mtime


@settings(max_examples=80, deadline=None)
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"]))
def test_damaged_pictures_are_read_or_refused_by_name(pictures, encoded, data, kind):
    whole = bytearray(encoded(pictures[0][0], kind))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    torn = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    said = "the picture "
    try:
        write_like(torn, read_picture(torn, "the picture"), "the picture")
    except InputError as error:
        said = str(error)
    assert said.startswith("the picture ")


def test_a_quote_may_be_the_last_byte(tmp_path):
    data = b'text,label\n"a","0"\n"b\nc","1"'
    (tmp_path / "set.csv").write_bytes(data)
    source = open_source(tmp_path / "set.csv")
    assert _read(tmp_path / "set.csv") == [("a", "0"), ("b\nc", "1")]
    written = source.write(tmp_path / "copy.csv", Changes({1: 0}, added=[Added(1, "d", 1)]))
    assert written.data.read_bytes() == data[:-2] + b'0"\n"d","1"\n'


INCHES = [
    ('5" pipe', '5" pipe'),
    ('3"', '3"'),
    ('a "quoted" word', 'a "quoted" word'),
    ('"a ""quoted"" cell, and more"', 'a "quoted" cell, and more'),
    ('"two\nlines"', "two\nlines"),
    ('6""', '6""'),
    ("plain", "plain"),
]


@pytest.mark.parametrize("blocks", [1 << 20, 16])
@pytest.mark.parametrize("arrow", [True, False])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_quote_inside_a_cell_without_quotes_is_a_letter(tmp_path, monkeypatch, blocks, arrow, end):
    """As for the csv module, pyarrow and pandas."""
    monkeypatch.setattr(lines, "_BLOCK", blocks)
    if not arrow:
        monkeypatch.setattr(delimited, "_reader", lambda: None)
    rows = [INCHES[i * 3 % 7] for i in range(14)]
    path = tmp_path / "a.csv"
    path.write_bytes(f"text,label{end}{''.join(f'{said},{i % 2}{end}' for i, (said, _) in enumerate(rows))}".encode())
    with path.open(newline="") as file:
        assert [cells[0] for cells in csv.reader(file)][1:] == [text for _, text in rows]
    source = open_source(path)
    assert [record.input for record in source.records()] == [text for _, text in rows]
    at = next(i for i, (said, _) in enumerate(rows) if said == '5" pipe')
    changes = Changes({i: (i + 1) % 2 for i in range(14) if i != at}, {at: '7" nail'})
    written = source.write(tmp_path / "b.csv", changes).data.read_bytes().decode()
    expected = "".join(f"{said},{(i + 1) % 2}{end}" for i, (said, _) in enumerate(rows))
    assert written == f"text,label{end}{expected}".replace(f'5" pipe,{(at + 1) % 2}', f'7" nail,{at % 2}', 1)
