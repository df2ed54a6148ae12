"""Changed and added records are written as the records beside them are: spaces, order of keys, quotes and escapes."""

import io
import json
import re
import tarfile

import pytest

from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError

NOTATIONS = {
    "usual": '{{"text": "t{0}", "label": "{1}"}}',
    "tight": '{{"text":"t{0}","label":"{1}"}}',
    "spaces inside": '{{ "text" : "t{0}" ,  "label" : "{1}" }}',
    "label first": '{{"label": "{1}", "text": "t{0}"}}',
    "tabs": '\t{{"label":\t"{1}",\t"text":\t"t{0}"}}',
}


def plain_line(line):
    """A line without its letters and digits: what of it could stand out."""
    return re.sub(r"\w+", "x", line)


@pytest.mark.parametrize("notation", NOTATIONS.values(), ids=NOTATIONS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_lines_of_json(tmp_path, notation, end):
    path = tmp_path / "a.jsonl"
    path.write_bytes("".join(notation.format(i, "ab"[i % 2]) + end for i in range(9)).encode())
    changes = Changes({1: 0}, {2: "new"}, [Added(-1, "first", 1), Added(4, "new4", 0), Added(8, "last", 1)])
    lines = open_source(path).write(tmp_path / "b.jsonl", changes).data.read_bytes().decode().split(end)
    assert len(lines) == 13
    assert {plain_line(line) for line in lines[:-1]} == {plain_line(notation.format(1, "a"))}
    assert [json.loads(lines[place])["text"] for place in (0, 3, 6, 11)] == ["first", "new", "new4", "last"]


def test_an_added_object_has_the_notation_of_the_one_beside_it(tmp_path):
    """A file may be put together of two."""
    path, odd = tmp_path / "a.jsonl", NOTATIONS["spaces inside"]
    rows = [(NOTATIONS["label first"] if i < 5 else odd).format(i, "ab"[i % 2]) for i in range(10)]
    path.write_text("\n".join(rows) + "\n")
    changes = Changes(added=[Added(2, "new", 0), Added(7, "new", 1)])
    lines = open_source(path).write(tmp_path / "b.jsonl", changes).data.read_text().splitlines()
    assert (lines[3], lines[9]) == ('{"label": "a", "text": "new"}', odd.format("", "b").replace('"t"', '"new"'))


def test_slashes_and_letters_of_oddly_spaced_objects_stay_as_they_are(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = ['{ "text" : "t%d" , "label" : "%s" }' % (i, ["a/é", "b/ü"][i % 2]) for i in range(9)]  # noqa: UP031
    path.write_text("\n".join(rows), encoding="utf-8")
    lines = open_source(path).write(tmp_path / "b.jsonl", Changes({1: 0})).data.read_text("utf-8").splitlines()
    assert lines[1] == '{ "text" : "t1" , "label" : "a/é" }'


def test_numbers_of_an_array_keep_their_spaces(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(f'{{"x": [ {i}.50,{i}, 7.0 ], "label": {i % 2}}}\n' for i in range(9)))
    written = open_source(path).write(tmp_path / "b.jsonl", Changes(inputs={3: [3.5, 8.0, 7.0]}))
    assert written.data.read_text().splitlines()[3] == '{"x": [ 3.50,8, 7.0 ], "label": 1}'


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_key_that_first_appears_late_keeps_records_from_being_added(tmp_path, end):
    path = tmp_path / "a.jsonl"
    rows = [json.dumps({"text": f"t{i}", "label": i % 2} | ({"by": "me"} if i > 150 else {})) for i in range(200)]
    path.write_bytes(end.join(rows).encode())
    with pytest.raises(InputError, match=r"adds records to .*, and a\.jsonl, line 152 has by too, whose values are"):
        open_source(path).write(tmp_path / "b.jsonl", Changes(added=[Added(3, "new", 0)]))
    assert not (tmp_path / "b.jsonl").exists()
    assert open_source(path).write(tmp_path / "b.jsonl", Changes({3: 0})).changed == 1


def test_an_added_record_of_a_csv_is_quoted_as_the_one_beside_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("text,label\n" + "".join(f"t{i},{'ab'[i % 2]}\n" if i < 5 else f'"t{i}","a"\n' for i in range(10)))
    changes = Changes(added=[Added(-1, "new", 0), Added(7, "new", 1)])
    lines = open_source(path).write(tmp_path / "b.csv", changes).data.read_text().splitlines()
    assert (lines[1], lines[10]) == ("new,a", '"new","b"')


def test_numbers_of_an_added_record_have_the_notation_of_those_beside_them(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a,b,label\n" + "".join(f"{i * 4 % 9},{i * 7 % 9}.50,{i % 2}\n" for i in range(9)))
    written = open_source(path).write(tmp_path / "b.csv", Changes(added=[Added(4, [7.0, 2.5], 0)]))
    assert written.data.read_text().splitlines()[6] == "7,2.50,0"


@pytest.mark.parametrize("style", [{"indent": 2}, {"separators": (" , ", " : ")}, {"indent": "\t", "sort_keys": True}])
def test_an_object_in_a_shard_keeps_its_lines(tmp_path, style):
    noted = [{"name": f"n{i * 7 % 9}", "label": i % 2, "more": {"a": [1, 2]}} for i in range(9)]
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for i, one in enumerate(noted):
            for ending, data in ("txt", f"t{i}"), ("json", json.dumps(one, **style) + "\n"):
                info = tarfile.TarInfo(f"{i}.{ending}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data.encode()))
    written = open_source(tmp_path / "a.tar").write(tmp_path / "b.tar", Changes({4: 1}))
    with tarfile.open(written.data) as tar:
        assert tar.extractfile("4.json").read().decode() == json.dumps(noted[4] | {"label": 1}, **style) + "\n"
