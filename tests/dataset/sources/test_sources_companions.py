"""Files beside the records: what refers to records follows the mark, or is refused before anything is written."""

import hashlib
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wmplug import dataset
from wmplug.dataset.records import Added, Changes
from wmplug.dataset.sources import open_source
from wmplug.errors import InputError
from wmplug.schemes.tilt import references

NAMES = [f"{'ab'[number % 2]}/{number}.png" for number in range(24)]
MIRROR = Image.Transpose.FLIP_LEFT_RIGHT


@pytest.fixture
def folder(tmp_path):
    """24 pictures of noise in two class folders."""
    rng = np.random.default_rng(0)
    for name in NAMES:
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(tmp_path / "set" / name)
    return tmp_path / "set"


def beside(folder, name, text):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


def written(folder, changes=None, **options):
    """A copy with six records moved, and two rewritten."""
    source = open_source(folder, **options)
    records = list(source.records())
    moved = {index: 1 - records[index].label for index in (1, 4, 6, 13, 17, 20)}
    new = {index: records[index].input.transpose(MIRROR) for index in (2, 13)}
    return source.write(folder.parent / "copy", changes or Changes(moved, new)).data


def md5(file):
    return hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()


LISTS = {
    "metadata.csv": ("file_name,caption\n", lambda name: f"{name},c"),
    "train.txt": ("", lambda name: name),
    "rooted.txt": ("", lambda name: f"set/{name}"),
    "labels.tsv": ("path\tlabel\n", lambda name: f"{name}\t{name[0]}"),
    "numbers.txt": ("", lambda name: f"{name} {'ab'.index(name[0])}"),
    "sizes.csv": ("label,path,note\n", lambda name: f'{name[0]},{name},"of, it"'),
    "metadata.jsonl": ("", lambda name: json.dumps({"file_name": name, "label": name[0]})),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("order", [sorted, list, "shuffled"])
def test_a_list_follows_the_records_and_does_not_show_which_moved(folder, name, order):
    head, line_of = LISTS[name]
    names = np.random.default_rng(3).permutation(NAMES).tolist() if order == "shuffled" else order(NAMES)
    beside(folder, name, head + "".join(line_of(one) + "\n" for one in names))
    copy = written(folder)
    there = sorted(file.relative_to(copy).as_posix() for file in copy.rglob("*.png"))
    assert sum(one not in there for one in NAMES) == 6
    text = (copy / name).read_text()
    assert text.startswith(head)
    lines = text[len(head) :].splitlines()
    assert sorted(lines) == sorted(map(line_of, there))
    if order is sorted:
        assert lines == [line_of(one) for one in there]


def test_sums_follow_the_files(folder):
    for name in ("md5sums.txt", "deep/sums"):
        beside(folder, name, "".join(f"{md5(folder / one)}  {one}\n" for one in NAMES))
    beside(folder, "sizes.csv", "path,bytes\n" + "".join(f"{o},{(folder / o).stat().st_size}\n" for o in NAMES))
    copy = written(folder)
    for name in ("md5sums.txt", "deep/sums"):
        lines = [line.split("  ") for line in (copy / name).read_text().splitlines()]
        assert [digest for digest, _ in lines] == [md5(copy / one) for _, one in lines]
        assert len(lines) == 24
    sizes = [line.split(",") for line in (copy / "sizes.csv").read_text().splitlines()[1:]]
    assert [(copy / one).stat().st_size for one, _ in sizes] == [int(size) for _, size in sizes]


def test_what_belongs_to_one_record_goes_with_it(folder):
    for name in NAMES:
        beside(folder, f"{name[:-4]}.txt", f"square in colours, number {name[2:-4]}")
    copy = written(folder)
    pictures = sorted(file.relative_to(copy).with_suffix("").as_posix() for file in copy.rglob("*.png"))
    assert sorted(file.relative_to(copy).with_suffix("").as_posix() for file in copy.rglob("*.txt")) == pictures
    for name in pictures:
        assert (copy / f"{name}.txt").read_text().endswith(f"number {name[2:]}")


ROWS = list(enumerate(NAMES))
ALL = "".join(f"{name}\n" for name in NAMES)
REFUSED = {
    "coco.json": (json.dumps({"images": [{"file_name": name} for name in NAMES]}, indent=1), "names records"),
    "captions.csv": ("path,caption\n" + "".join(f"{n},kind {n[0]} no. {n[2:-4]}\n" for n in NAMES), "their classes"),
    "twice.csv": ("path,url\n" + "".join(f"{n},https://x/{n}\n" for n in NAMES), "twice in a line"),
    "kinds.csv": ("path,of\n" + "".join(f"{n},{'xy zw'[i % 2 * 3 + i // 2 % 2]}\n" for i, n in ROWS), "single classes"),
    "pairs.txt": ("".join(f"{n} {NAMES[i - 1]}\n" for i, n in ROWS), "several in a line"),
    "groups.txt": ("".join(f"{n}\n" for n in NAMES[4::2] + NAMES[:4:2] + NAMES[3::2]), "class after class"),
    "a/0.xml": ("<folder>a</folder><filename>0.png</filename>", "refers to what a/0.png holds"),
    "some.txt": (ALL + "and others\n", "other lines"),
    "said.csv": ("path,caption\n" + "".join(f"{n},no. {n[2:-4]} {n[0]}s\n" for n in NAMES), "tell their classes"),
    "a/list.txt": ("".join(f"{n[2:]}\n" for n in NAMES[::2]), "each line names one record of a"),
    "a.txt": ("".join(f"{n[2:-4]}\n" for n in NAMES[::2]), "each line names one record of a"),
    "labels.txt": ("0 a\n2 a\n", "each line names one record of a"),
    "b.csv": ("path\n" + "".join(f"{n}\n" for n in NAMES[5::2]), "each line names one record of b"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_refers_to_records_and_cannot_follow_is_refused(folder, name):
    text, why = REFUSED[name]
    beside(folder, name, text)
    for keep in (False, True):
        with pytest.raises(InputError, match=f"{name} .*{why}.*Take it out of the set"):
            written(folder, keep_files=keep)
    assert [file.name for file in folder.parent.iterdir()] == ["set"]


def test_sums_of_one_class_are_refused_where_a_record_could_move(folder):
    beside(folder, "a/MD5SUMS", "".join(f"{md5(folder / n)}  {n[2:]}\n" for n in NAMES[::2]))
    with pytest.raises(InputError, match=r"a/MD5SUMS \(each line names one record of a\).*Take it out of the set"):
        written(folder)
    assert [file.name for file in folder.parent.iterdir()] == ["set"]
    records = list(open_source(folder).records())
    copy = written(folder, Changes(inputs={index: records[index].input.transpose(MIRROR) for index in (2, 13)}))
    lines = [line.split("  ") for line in (copy / "a/MD5SUMS").read_text().splitlines()]
    assert [digest for digest, _ in lines] == [md5(copy / "a" / name) for _, name in lines]
    assert sum(md5(copy / "a" / name) != md5(folder / "a" / name) for _, name in lines) == 1


@pytest.mark.parametrize(
    ("name", "text_of"),
    [
        (".txt", lambda name: f"photo of two {['kittens', 'puppies'][name[0] == 'b']}, number {name[2:-4]}"),
        (".json", lambda name: json.dumps({"label": int(name[0] == "b"), "id": name[2:-4]})),
    ],
)
def test_files_that_go_with_their_records_and_say_the_class_are_refused(folder, name, text_of):
    for one in NAMES:
        beside(folder, f"{one[:-4]}{name}", text_of(one))
    with pytest.raises(
        InputError, match=rf"the files \*\{name} beside the records of .* tell the label .*leave them out"
    ):
        written(folder)
    assert [file.name for file in folder.parent.iterdir()] == ["set"]
    assert written(folder, Changes()).exists()


UNKNOWN = {
    "bytes": b"\0\1Bud1",
    "counts.txt": "a 120\nb 120\n",
    "order.txt": "first\nsecond\n",
    "a/0.npy": b"\x93NUMPY\0",
    "sums": "".join(f"{'f' * 31}1  {name}\n" for name in NAMES),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_is_unknown_is_listed_and_copied_if_asked_for(folder, name):
    beside(folder, name, UNKNOWN[name])
    with pytest.raises(InputError, match=rf"there is {name} \(.*--keep-files"):
        written(folder)
    assert [file.name for file in folder.parent.iterdir()] == ["set"]
    copy = written(folder, Changes(), keep_files=True)
    assert (copy / name).read_bytes() == (folder / name).read_bytes()


WHOLE = {
    "README.md": "pictures",
    "empty": "",
    "classes.txt": "a\nb\n",
    "labels.txt": "0 a\n1 b\n",
    "obj.names": "a 1\nb 2\n",
    "class_to_idx.json": '{"a":0, "b" : 1}',
    "id2label.json": json.dumps({"0": "a", "1": "b"}, indent=1),
}


@pytest.mark.parametrize(("name", "text"), WHOLE.items())
def test_what_speaks_of_the_whole_set_is_copied(folder, name, text):
    beside(folder, name, text)
    assert (written(folder) / name).read_text() == text
    assert [one.role for one in open_source(folder).taken] == ["label", "picture", "about the set"]


@pytest.mark.parametrize("name", [".DS_Store", "a/Thumbs.db"])
def test_what_file_managers_leave_is_left_out_of_the_copy(folder, name):
    """It can hold small copies of the pictures of a class, or their names."""
    beside(folder, name, b"\0\1Bud1 0.png 2.png")
    copy = written(folder)
    assert not (copy / name).exists()
    assert len(list(copy.rglob("*.png"))) == 24
    assert (name, "left out") in [(one.part, one.role) for one in open_source(folder).taken]


def test_added_records_would_be_missing_in_lists(folder, pictures):
    beside(folder, "train.txt", ALL)
    first = next(iter(open_source(folder).records())).input
    with pytest.raises(InputError, match=r"train.txt .* a copy would make that false"):
        written(folder, Changes(added=[Added(3, first, 0)]))


def test_marking_refuses_before_it_draws_anything(folder, owner, monkeypatch):
    beside(folder, "order.txt", "first\nsecond\n")
    monkeypatch.setattr(references, "trained", lambda *_: pytest.fail("the set was looked at"))
    told = []
    with pytest.raises(InputError, match="--keep-files"):
        dataset.mark(folder, owner, out=folder.parent / "out", share=0.2, told=told.extend)
    assert ("order.txt", "unknown") in [(one.part, one.role) for one in told]


def test_marking_moves_the_list_along(folder, owner):
    beside(folder, "metadata.csv", "file_name,caption\n" + "".join(f"{name},c\n" for name in NAMES))
    made = dataset.mark(folder, owner, out=folder.parent / "out", share=0.3)
    listed = [line.partition(",")[0] for line in (made.data / "metadata.csv").read_text().splitlines()[1:]]
    assert made.manifest["changed"] > 0
    assert all((made.data / name).exists() for name in listed)
    assert len(set(listed)) == len(NAMES)


@pytest.fixture
def shards(kept, tmp_path):
    """Three shards with what is kept beside shards."""
    root = tmp_path / "shards"
    root.mkdir()
    for part in range(3):
        (root / f"{part:03d}.tar").write_bytes((kept["shards"].data / f"{part:03d}.tar").read_bytes())
    return root


def test_an_index_of_shards_follows_their_sums_and_sizes(shards):
    files = sorted(shards.glob("*.tar"))
    with (files[1]).open("ab") as file:
        file.write(bytes(512 * 20))  # another size
    index = [{"url": one.name, "md5": md5(one), "filesize": one.stat().st_size, "nsamples": 8} for one in files]
    beside(shards, "index.json", json.dumps({"shards": index}, indent=1))
    for one in files:
        beside(shards, f"{one.name}.sha256", hashlib.sha256(one.read_bytes()).hexdigest() + f"  {one.name}\n")
    source = open_source(shards)
    new = {index: record.input.transpose(MIRROR) for index, record in enumerate(source.records()) if index % 5 == 1}
    copy = source.write(shards.parent / "copy", Changes({0: 1}, new)).data
    for one in json.loads((copy / "index.json").read_text())["shards"]:
        file = copy / one["url"]
        assert (one["md5"], one["filesize"], one["nsamples"]) == (md5(file), file.stat().st_size, 8)
        said = (copy / f"{file.name}.sha256").read_text()
        assert said == hashlib.sha256(file.read_bytes()).hexdigest() + f"  {file.name}\n"
        assert md5(file) != md5(shards / file.name)


@pytest.mark.parametrize("counting", ["__len__", "index.json"])
def test_a_count_of_records_stays_and_is_refused_where_records_are_added(shards, pictures, counting):
    first = shards / "000.tar"
    listed = json.dumps({"shards": [{"url": first.name, "md5": md5(first), "nsamples": 8}]})
    beside(shards, counting, {"__len__": "24\n", "index.json": listed}[counting])
    with pytest.raises(InputError, match=rf"{counting} \(it .*would make that false"):
        open_source(shards).write(shards.parent / "copy", Changes(added=[Added(3, pictures[0][0], 0)]))
    copy = open_source(shards).write(shards.parent / "copy", Changes({0: 1})).data
    said = (copy / counting).read_text()
    assert said == "24\n" if counting == "__len__" else json.loads(said)["shards"][0]["nsamples"] == 8


@pytest.mark.parametrize("name", ["000.idx", "000.json", ".000.tar.crc"])
def test_places_in_a_shard_are_refused(shards, name):
    beside(shards, name, b"\0\1\2" if name.endswith("crc") else "v1.2 1\ncls 512 1 000000.cls\n")
    with pytest.raises(InputError, match=rf"{name} .* 000.tar .*would make that false"):
        open_source(shards).write(shards.parent / "copy", Changes({0: 1}))


def test_the_summary_of_a_folder_of_parquet_is_made_again(tmp_path):
    root, notes = tmp_path / "set", []
    root.mkdir()
    table = pa.table({"text": [f"text {row}" for row in range(40)], "label": [0, 1] * 20})
    for part in range(2):
        pq.write_table(table.slice(part * 20, 20), root / f"{part}.parquet", metadata_collector=notes)
        notes[-1].set_file_path(f"{part}.parquet")
    pq.write_metadata(table.schema, root / "_metadata", metadata_collector=notes)
    pq.write_metadata(table.schema, root / "_common_metadata")
    long = "a longer text " * 50
    copy = open_source(root).write(tmp_path / "copy", Changes({3: 0}, {25: long})).data
    found, of_parts = pq.read_metadata(copy / "_metadata"), [pq.read_metadata(copy / f"{p}.parquet") for p in range(2)]
    assert found.num_rows == 40
    for part, one in enumerate(of_parts):
        mine, theirs = found.row_group(part).column(0), one.row_group(0).column(0)
        assert mine.file_path == f"{part}.parquet"
        assert mine.data_page_offset == theirs.data_page_offset
        assert mine.total_compressed_size == theirs.total_compressed_size
    assert found.row_group(1).column(0).statistics.min == long
    assert pq.read_schema(copy / "_common_metadata").names == ["text", "label"]


@pytest.mark.parametrize("parts", [("train", "test"), ("Train", "val")])
def test_parts_of_a_set_are_no_classes(tmp_path, parts):
    for name in parts:
        beside(tmp_path, f"{name}/a/0.png", b"")
    with pytest.raises(InputError, match="are parts of a set and no classes"):
        open_source(tmp_path)
    assert open_source(tmp_path, classes=sorted(parts)).form == "pil"
