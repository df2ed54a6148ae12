"""What stands beside a label, and tells it or does not."""

import io
import json
import random
import tarfile
from contextlib import nullcontext

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from wmplug import dataset
from wmplug.dataset.records import Changes
from wmplug.dataset.sources import open_source
from wmplug.dataset.sources.tells import refuse_tells, spread, told_by
from wmplug.errors import InputError

N = 60
_RANDOM = random.Random(1)
NOISE = [f"{_RANDOM.getrandbits(64):016x}" for _ in range(N)]


def pairs(text, label=lambda index: "ab"[index % 2]):
    return [(label(index), text(index, index % 2)) for index in range(N)]


TELLING = {
    "the class": lambda i, y: f"{['cat', 'dog'][y]}.{i:03d}.png",
    "the class and a number": lambda i, y: f"{['cat', 'dog'][y]}{i}.png",
    "a number of the class": lambda i, y: f"{['n01440764', 'n02102040'][y]}_{i * 7 % 60}.png",
    "other folders of each": lambda i, y: f"{['tabby', 'manx', 'poodle', 'boxer'][2 * y + i // 2 % 2]}/{i}.png",
    "numbers on and on": lambda i, y: f"{100 * y + i // 2}.png",
    "numbers of other lengths": lambda i, y: f"{i * 37 % 60:0{2 + 2 * y}d}.png",
    "other endings": lambda i, y: f"{NOISE[i]}.{['png', 'jpg'][y]}",
    "a number": lambda i, y: str(y),
    "a word among others": lambda i, y: f"{NOISE[i]} shows a {['kitten', 'puppy'][y]} in {NOISE[-i]}",
    "a word that the others lack": lambda i, y: f"{NOISE[i]} is {['not', 'not a dog'][y]} {NOISE[-i]}",
    "a value of JSON": lambda i, y: f'{{"id": {i}, "size": 1, "flag": 0, "class": {y}}}',
    "the first number": lambda i, y: f"{y} 0.{i} 0.1 0.{60 - i} 1.0",
}
SILENT = {
    "numbers of each": lambda i, y: f"{i // 2:04d}.png",
    "numbers of all": lambda i, y: f"{i:04d}.png",
    "numbers in any order": lambda i, y: f"img_{random.Random(i).randrange(10**6)}.png",
    "random names": lambda i, y: f"{NOISE[i]}.png",
    "the same": lambda i, y: "picture.png",
    "words of both": lambda i, y: f"a {['cat', 'dog'][i // 2 % 2]} or so {i}",
    "nothing": lambda i, y: "",
}


@pytest.mark.parametrize("text", TELLING.values(), ids=TELLING)
def test_what_tells_the_label(text):
    """Also with a few exceptions, and with three in four of one label."""
    assert told_by(pairs(text))
    assert told_by([("b" if label == "a" else "a", text) for label, text in pairs(text)[:1]] + pairs(text)[1:])
    assert told_by([one for i, one in enumerate(pairs(text)) if i % 2 or i % 3 == 0])


@pytest.mark.parametrize("text", SILENT.values(), ids=SILENT)
def test_what_tells_nothing(text):
    """Nor do texts of a set in which nearly all records have one label."""
    assert told_by(pairs(text)) is None
    assert told_by(pairs(text, lambda index: "b" if index in (7, 13, 22, 31, 40, 52) else "a")) is None


def test_one_label_or_few_records_are_not_told():
    assert told_by(pairs(TELLING["the class"], lambda index: "a")) is None
    assert told_by(pairs(TELLING["the class"])[:19]) is None


def test_chance_tells_nothing():
    """Of random names of few pictures, hardly any tell their classes; each would refuse a set for nothing."""
    drawn = random.Random(2)
    for count, share in [(20, 0.5), (24, 0.5), (40, 0.15), (100, 0.1)]:
        sets = ([(drawn.random() < share, f"{drawn.randrange(10**6)}.png") for _ in range(count)] for _ in range(200))
        assert sum(told_by(found) is not None for found in sets) <= 4


def test_some_of_all_are_drawn_evenly():
    """Every second record would be of one label in a set whose labels take turns."""
    drawn = spread(range(10_000), 1000)
    assert len(set(drawn)) == 1000
    assert min(drawn) < 1000 < 9000 < max(drawn)
    assert 400 < sum(one % 2 for one in drawn) < 600
    assert drawn == spread(range(10_000), 1000)


def test_a_refusal_says_what_tells_and_what_to_do():
    with pytest.raises(InputError, match=r"the names in x tell the label \('cat\.#\.png' says a, .*: rename them, or"):
        refuse_tells(pairs(TELLING["the class"]), "the names in x", "rename them")
    refuse_tells(pairs(SILENT["random names"]), "the names in x", "rename them")


def folder_of(root, name_of):
    for index in range(N):
        file = root / "ab"[index % 2] / name_of(index, index % 2)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (4 * index, 0, 0)).save(file)
    return root


NAMES = ["the class", "the class and a number", "a number of the class", "other folders of each", "numbers on and on"]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_pictures_that_tell_the_class_are_refused_before_anything_is_written(tmp_path, owner, name):
    root = folder_of(tmp_path / "set", TELLING[name])
    with pytest.raises(InputError, match=r"names of the pictures in .* tell the label .*: give them random names, or"):
        dataset.mark(root, owner, out=tmp_path / "copy", share=0.2)
    with pytest.raises(InputError, match="tell the label"):
        open_source(root).write(tmp_path / "copy", Changes({0: 1}))
    assert [one.name for one in tmp_path.iterdir()] == ["set"]
    picture = next(iter(open_source(root).records())).input
    assert open_source(root).write(tmp_path / "copy", Changes(inputs={3: picture})).changed == 1


@pytest.mark.parametrize("name", ["numbers of each", "numbers of all", "numbers in any order", "random names"])
def test_names_of_pictures_that_tell_nothing_are_accepted(tmp_path, name):
    root = folder_of(tmp_path / "set", SILENT[name])
    assert open_source(root).write(tmp_path / "copy", Changes({0: 1, 40: 0})).changed == 2


def tar_of(path, members_of):
    with tarfile.open(path, "w") as tar:
        for index in range(N):
            label = index % 2
            for name, text in members_of(index, label).items():
                info = tarfile.TarInfo(name)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
    return path


def beside(index, label, **more):
    name = f"{NOISE[index]}"
    members = {f"{name}.txt": f"text {index}", f"{name}.cls": str(label)}
    return members | {f"{name}.{end.replace('_', '.')}": text for end, text in more.items()}


CAT = ["cat", "dog"]
TELLING_MEMBERS = {
    "label in json": ("members .json", lambda i, y: beside(i, y, json=json.dumps({"id": i, "label": y}))),
    "name in json": ("members .json", lambda i, y: beside(i, y, json=json.dumps({"id": i, "of": {"name": CAT[y]}}))),
    "caption": ("members .caption", lambda i, y: beside(i, y, caption=f"{NOISE[-i]} of two {CAT[y]}s {i}")),
    "name": ("members .class.txt", lambda i, y: beside(i, y, class_txt=CAT[y])),
    "bytes": ("members .mask", lambda i, y: beside(i, y, mask="\0\1" + CAT[y])),
    "for one class": ("members .json", lambda i, y: beside(i, y, **({"json": "{}"} if y else {}))),
    "folders": ("names of the records", lambda i, y: {f"{CAT[y]}/{k}": v for k, v in beside(i, y).items()}),
    "numbers": ("names of the records", lambda i, y: {f"{i + N * y}.txt": "t", f"{i + N * y}.cls": str(y)}),
    "both in json": (
        "members .json",
        lambda i, y: {f"{i}.txt": "text", f"{i}.json": json.dumps({"name": CAT[y], "label": y})},
    ),
}


@pytest.mark.parametrize("name", TELLING_MEMBERS)
def test_members_that_tell_the_label_are_refused_before_anything_is_written(tmp_path, owner, name):
    what, members_of = TELLING_MEMBERS[name]
    path = tar_of(tmp_path / "set.tar", members_of)
    options = {"columns": ["txt"]}
    with pytest.raises(InputError, match=rf"the {what} in .* tell the label \(.*choose a scheme that changes no label"):
        dataset.mark(path, owner, out=tmp_path / "copy.tar", share=0.2, **options)
    with pytest.raises(InputError, match="tell the label"):
        open_source(path, **options).write(tmp_path / "copy.tar", Changes({0: 1}))
    assert [one.name for one in tmp_path.iterdir()] == ["set.tar"]
    assert open_source(path, **options).write(tmp_path / "copy.tar", Changes(inputs={3: "another"})).changed == 1


@pytest.mark.parametrize(
    "members_of",
    [
        beside,
        lambda i, y: beside(i, y, json=json.dumps({"id": i, "size": i % 3}), key=str(i)),
        lambda i, y: beside(i, y, mask="\0" + NOISE[-i]),
        lambda i, y: {f"{i}.txt": "text", f"{i}.json": json.dumps({"id": i, "label": y})},
    ],
)
def test_members_that_tell_nothing_are_accepted(tmp_path, members_of):
    path = tar_of(tmp_path / "set.tar", members_of)
    written = open_source(path, columns=["txt"]).write(tmp_path / "copy.tar", Changes({0: 1, 7: 0}))
    assert written.changed == 2


TRUTH = np.arange(N) % 2
SURE = np.random.default_rng(3).uniform(0.51, 0.99, N)
SCORES = np.where(np.eye(2)[TRUTH] == 1, SURE[:, None], 1 - SURE[:, None])
TELLING_ARRAYS = {
    "one-hot": {"y_onehot": np.eye(2)[TRUTH]},
    "soft": {"soft": SCORES},
    "soft, rounded": {"soft": SCORES.round(2).astype(np.float32)},
    "of one class": {"score": np.ascontiguousarray(SCORES[:, 1])},
    "small": {"score": 1e-6 * np.ascontiguousarray(SCORES[:, 1])},
    "names": {"names": np.array([f"{CAT[y]}{i}" for i, y in enumerate(TRUTH)])},
    "bytes": {"names": np.array([CAT[y].encode() for y in TRUTH])},
    "numbers of rows": {"of_cats": np.flatnonzero(TRUTH == 0), "of_dogs": np.flatnonzero(TRUTH == 1)},
    "records": {"both": np.array([(i, y) for i, y in enumerate(TRUTH)], [("id", "i4"), ("of", "i4")])},
}
SILENT_ARRAYS = {
    "nothing": {},
    "index": {"index": np.arange(N), "about": np.arange(3), "one": np.array(1)},
    "names": {"names": np.array(NOISE), "classes": np.array(CAT)},
    "numbers": {"weights": np.random.default_rng(1).normal(size=(N, 3))},
    "parts": {"train": np.arange(40), "test": np.arange(40, N)},
    "other inputs": {"masks": np.zeros((N, 32, 32), np.float32)},
}


@pytest.mark.parametrize("arrays", TELLING_ARRAYS.values(), ids=TELLING_ARRAYS)
def test_arrays_that_tell_the_label_are_refused_before_anything_is_written(tmp_path, owner, arrays):
    path = tmp_path / "set.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(N, 3)), y=TRUTH, **arrays)
    with pytest.raises(InputError, match=rf"of .*{next(iter(arrays))}.* tell the label .*: leave .* out, or choose"):
        dataset.mark(path, owner, out=tmp_path / "copy.npz", share=0.2)
    assert [one.name for one in tmp_path.iterdir()] == ["set.npz"]
    assert open_source(path).write(tmp_path / "copy.npz", Changes(inputs={3: np.ones(3)})).changed == 1


def test_arrays_of_objects_are_refused_until_they_are_to_be_kept(tmp_path):
    """Nobody can judge them without unpickling them."""
    path = tmp_path / "set.npz"
    np.savez(path, x=np.zeros((N, 3)), y=TRUTH, who=np.array([{"of": y} for y in TRUTH], object))
    with pytest.raises(InputError, match=r"the array who in .* holds Python objects, .*: save texts or .*--keep-files"):
        open_source(path).write(tmp_path / "copy.npz", Changes({0: 1}))
    assert open_source(path).write(tmp_path / "same.npz", Changes(inputs={3: np.ones(3)})).changed == 1
    assert open_source(path, keep_files=True).write(tmp_path / "copy.npz", Changes({0: 1})).changed == 1
    np.savez(path, x=np.zeros((N, 3)), y=TRUTH.astype(object))
    with pytest.raises(InputError, match=r"the labels y in .* are Python objects, .*: save them as texts or whole"):
        open_source(path)


def test_scores_of_many_classes_tell_the_label(tmp_path):
    """Their rows are longer than what is looked at of others."""
    classes, count = 300, 600
    truth = np.random.default_rng(0).permutation(np.arange(count) % classes)
    scores = np.random.default_rng(1).uniform(size=(count, classes))
    scores[np.arange(count), truth] += 1
    np.savez(tmp_path / "set.npz", x=np.zeros((count, 3)), y=truth, scores=scores)
    with pytest.raises(InputError, match=r"the rows of scores in .* tell the label"):
        open_source(tmp_path / "set.npz").write(tmp_path / "copy.npz", Changes({0: 1}))


IN_ORDER = {
    "sorted": lambda labels: sorted(labels),
    "sorted but for two": lambda labels: [*sorted(labels)[1:50], 0, 1, *sorted(labels)[50:-1]],
}
MIXED = {
    "shuffled": lambda labels: labels,
    "one label but for some": lambda labels: [int(i % 9 == 4) for i in range(100)],
}


def in_memory(kind, texts, labels):
    if kind == "lists":
        return texts, labels
    if kind == "arrays":
        return np.random.default_rng(0).normal(size=(len(texts), 3)), np.array(labels)
    made = datasets.Dataset.from_dict({"text": texts, "label": labels})
    return made.to_iterable_dataset() if kind == "iterable" else made


def kept_in_a_file(kind, texts, labels, folder):
    path = folder / f"set.{kind}"
    if kind == "npz":
        np.savez(path, x=np.array(texts), y=np.array(labels))
    elif kind == "parquet":
        pq.write_table(pa.table({"text": texts, "label": labels}), path)
    else:
        found = list(zip(texts, labels, strict=True))
        order = NOISE + NOISE
        with tarfile.open(path, "w") as tar:
            for index, (text, label) in enumerate(found):
                for ending, data in ("txt", text), ("cls", str(label)):
                    info = tarfile.TarInfo(f"{order[index]}{index * 37 % 100}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data.encode()))
    return path


@pytest.mark.parametrize("order", IN_ORDER | MIXED)
@pytest.mark.parametrize("kind", ["lists", "arrays", "dataset", "iterable", "npz", "parquet", "tar"])
def test_the_order_of_records_tells_their_labels(tmp_path, kind, order):
    """Where all of a label follow each other, a changed label stands among others."""
    labels = (IN_ORDER | MIXED)[order](np.random.default_rng(5).integers(0, 2, 100).tolist())
    texts = [f"text {place * 37 % 100}" for place in range(100)]
    within = kind in ("lists", "arrays", "dataset", "iterable")
    data = in_memory(kind, texts, labels) if within else kept_in_a_file(kind, texts, labels, tmp_path)
    out = None if within and kind != "iterable" else tmp_path / f"copy{'.' + kind if not within else ''}"
    refused = pytest.raises(InputError, match=r"repeats the label in the order of its records, .*: shuffle it, or")
    with refused if order in IN_ORDER else nullcontext():
        assert open_source(data).write(out, Changes({0: 1 - labels[0], 1: 1 - labels[1]})).changed == 2


def test_one_record_of_a_rare_class_hides_no_column(tmp_path):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "of": ["cat", "dog"][i % 2]} for i in range(60)]
    pq.write_table(pa.Table.from_pylist([*rows, {"text": "t", "label": "c", "of": "cow"}]), tmp_path / "set.parquet")
    with pytest.raises(InputError, match="repeats the label in of, which"):
        open_source(tmp_path / "set.parquet").write(tmp_path / "copy.parquet", Changes({0: 1}))


def test_a_column_that_is_always_the_same_tells_nothing_of_a_frequent_label(tmp_path):
    rows = [{"text": f"t{i}", "label": int(i % 30 == 7), "of": "web"} for i in range(120)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "set.parquet")
    assert open_source(tmp_path / "set.parquet").write(tmp_path / "copy.parquet", Changes({0: 1})).changed == 1


def pictures_of(path_of, kind, folder):
    """A set of pictures as `datasets` keeps them, with a path beside the bytes of each."""
    cells = []
    for index in range(N):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (4 * index, 0, 0)).save(file, "PNG")
        cells.append({"bytes": file.getvalue(), "path": path_of(index, index % 2)})
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=CAT)})
    made = datasets.Dataset.from_dict({"image": cells, "label": [i % 2 for i in range(N)]}, features=features)
    if kind == "dataset":
        return made
    path = folder / f"set.{kind}"
    made.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
@pytest.mark.parametrize("name", [*NAMES, "its folder", "its absolute folder"])
def test_paths_beside_pictures_that_tell_the_class_are_refused(tmp_path, kind, name):
    folders = {
        "its folder": lambda i, y: f"{CAT[y]}/{i:03d}.png",
        "its absolute folder": lambda i, y: f"/data/{CAT[y]}/{NOISE[i]}.png",
    }
    data = pictures_of((TELLING | folders)[name], kind, tmp_path)
    with pytest.raises(InputError, match=r"repeats the label in image\.path, which .*: save the pictures as bytes"):
        open_source(data).write(None if kind == "dataset" else tmp_path / "copy.parquet", Changes({0: 1}))
    picture = next(iter(open_source(data).records())).input
    out = None if kind == "dataset" else tmp_path / "copy.parquet"
    assert open_source(data).write(out, Changes(inputs={0: picture})).changed == 0


@pytest.mark.parametrize("kind", ["parquet", "dataset"])
@pytest.mark.parametrize("name", [*SILENT, "none"])
def test_paths_beside_pictures_that_tell_nothing_are_accepted(tmp_path, kind, name):
    data = pictures_of((SILENT | {"none": lambda i, y: None})[name], kind, tmp_path)
    assert open_source(data).write(None if kind == "dataset" else tmp_path / "c.parquet", Changes({0: 1})).changed == 1


def test_fields_of_objects_beside_the_label_are_judged_one_by_one(tmp_path):
    """In the text of the whole object they could stand behind what is looked at."""
    path = tmp_path / "set.jsonl"
    rows = [{"text": f"t{i}", "label": i % 2, "of": {"long": "x" * 3000, "by": {"flag": i % 2}}} for i in range(N)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(InputError, match=r"repeats the label in of\.by\.flag, which"):
        open_source(path).write(tmp_path / "copy.jsonl", Changes({0: 1}))


@pytest.mark.parametrize("arrays", SILENT_ARRAYS.values(), ids=SILENT_ARRAYS)
def test_arrays_that_tell_nothing_are_accepted(tmp_path, arrays):
    path = tmp_path / "set.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(N, 3)), y=TRUTH, **arrays)
    assert open_source(path).write(tmp_path / "copy.npz", Changes({0: 1, 7: 0})).changed == 2
