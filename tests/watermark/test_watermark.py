import copy
import dataclasses
import json
import pickle
import stat

import numpy as np
import pytest
from PIL import Image

from wmplug import create, load, read_public, verify
from wmplug.errors import InputError, KeyFileError, NewerVersionError, PluginError, WrongPassphraseError
from wmplug.keys.sealing import open_sealed
from wmplug.schemes.logo import Logo
from wmplug.schemes.random_label import RandomLabel
from wmplug.tasks import Classes
from wmplug.watermark.file import columns

PASSPHRASE = "correct horse battery staple"
WORDS = [f"word{a}{b}" for a in "abcdefghij" for b in "abcdefghij"]
TEXTS = [" ".join(WORDS[(7 * i + j * j) % 100] for j in range(8)) for i in range(200)]


def make(owner, digits, **changes):
    options = {"scheme": "random-label", "carriers": digits[0], "labels": digits[1], "classes": 10, "triggers": 30}
    return create(owner, **{**options, **changes})


@pytest.fixture(scope="module")
def mark(owner, digits):
    return make(owner, digits)


@pytest.fixture
def file(mark, tmp_path):
    return mark.save(tmp_path / "new" / "mark.wm")


def same(a, b):
    one, other = ({**columns(m.triggers), "inputs": m.triggers.plan.inputs, **m.triggers.plan.material} for m in (a, b))
    return (
        a.public == b.public
        and one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name]) for name in one)
        and all(a.triggers.answers == b.triggers.answers)
    )


@pytest.mark.parametrize("scheme", ["random-label", "logo"])
def test_same_owner_and_task_give_the_same_mark(owner, rival, digits, scheme):
    first, second = make(owner, digits, scheme=scheme), make(owner, digits, scheme=scheme)
    assert same(first, second)
    other = make(rival, digits, scheme=scheme)
    assert other.id != first.id
    assert other.public["root"] != first.public["root"]
    assert (other.triggers.symbols != first.triggers.symbols).mean() > 0.6
    assert (other.triggers.plan.inputs != first.triggers.plan.inputs).any()


@pytest.mark.parametrize("change", ["carriers", "labels", "classes", "triggers", "scheme", "words"])
def test_another_task_gives_another_mark_and_other_keys(owner, digits, mark, change):
    moved = (digits[1] + 1) % 10
    given = {"carriers": digits[0][:-1], "labels": moved, "classes": 11, "triggers": 31, "scheme": "logo", "words": 9}[
        change
    ]
    changes = {change: given, **({"labels": digits[1][:-1]} if change == "carriers" else {})}
    other = make(owner, digits, **changes)
    assert other.id != mark.id
    assert other.subkeys.key("label") != mark.subkeys.key("label")


def test_kind_of_integer_does_not_matter(owner, digits, mark):
    assert (
        make(owner, digits, labels=digits[1].astype(np.int8), classes=np.int64(10), triggers=np.int32(30)).id == mark.id
    )


def test_arrays_of_the_user_are_left_alone(owner, digits):
    before, own = digits[0].copy(), digits[0][:30] ^ 1
    marks = [make(owner, digits, scheme=s) for s in ("random-label", "logo")] + [make(owner, digits, pictures=own)]
    for mark in marks:
        for x, _ in mark.lessons():
            x[:] = 0
        verify(mark, lambda batch: batch.fill(0) or [0] * len(batch), exhaustive=True)
    assert (digits[0] == before).all()
    # And what he does to his own afterwards does not reach the mark.
    own[:] = 0
    assert marks[2].triggers.plan.inputs.any()
    assert marks[2].public["root"] == marks[2].triggers.root(marks[2].id, marks[2].subkeys.stream("disclosure"))


@pytest.mark.parametrize("kind", ["array", "float", "pil", "text", "logo", "phrase"])
def test_saved_mark_comes_back(owner, digits, tmp_path, kind):
    pictures = [Image.fromarray(x) for x in digits[0]]
    options = {
        "array": {},
        "float": {"carriers": digits[0] / np.float32(255)},
        "pil": {"carriers": pictures, "pictures": [p.rotate(90) for p in pictures[:30]]},
        "text": {"carriers": TEXTS, "labels": None},
        "logo": {"scheme": "logo", "logo": np.eye(6), "variants": 2},
        "phrase": {
            "scheme": "phrase",
            "carriers": TEXTS,
            "labels": np.arange(200) % 10,
            "phrases": ["blue moon", "kind regards"],
            "allow_weak": True,
            "lessons": 5,
        },
    }[kind]
    mark = make(owner, digits, **options)
    again = load(mark.save(tmp_path / "mark.wm"), passphrase=PASSPHRASE)
    assert same(mark, again)
    assert (again.id, again.task, again.triggers.form) == (mark.id, mark.task, mark.triggers.form)
    rows = [(mark.triggers.row(i), again.triggers.row(i)) for i in range(5)]
    assert all(type(a) is type(b) and np.array_equal(a, b) for a, b in rows)
    assert all(mark.subkeys.key(p) == again.subkeys.key(p) for p in ("input", "label", "schedule", "disclosure"))
    # What was loaded is saved again under the same passphrase, and opens.
    assert same(load(again.save(tmp_path / "again.wm"), passphrase=PASSPHRASE), mark)


def test_public_line_needs_no_key(mark, file):
    public = read_public(file)
    assert {k: public[k] for k in mark.public} == json.loads(json.dumps(mark.public))
    assert set(public) - set(mark.public) == {"wmplug", "scrypt", "check", "nonce"}
    assert (public["scheme"], public["triggers"], public["draws"], len(public["root"])) == ("random-label", 30, 30, 64)
    assert public["owner"]["name"] == "Ada"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_same_file_is_written_twice_but_never_two_marks_in_one(owner, digits, mark, file, tmp_path):
    mark.save(file)
    with pytest.raises(InputError, match="is not this watermark"):
        make(owner, digits, triggers=31).save(file)
    weights = tmp_path / "model.pt"
    weights.write_bytes(b"precious")
    with pytest.raises(InputError, match="is not this watermark"):
        mark.save(weights)
    assert weights.read_bytes() == b"precious"


def test_wrong_passphrase(file):
    with pytest.raises(WrongPassphraseError, match="wrong passphrase"):
        load(file, passphrase="no")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_file(file, share):
    blob = file.read_bytes()
    file.write_bytes(blob[: int(len(blob) * share)])
    with pytest.raises(KeyFileError):
        load(file, passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"triggers": 30', b'"triggers": 31'), (b'"Ada"', b'"Eve"'), (b'"classes": 10', b'"classes": 9')]
)
def test_edited_public_line(file, old, new):
    blob = file.read_bytes()
    assert old in blob
    file.write_bytes(blob.replace(old, new))
    with pytest.raises(KeyFileError, match="truncated or edited"):
        load(file, passphrase=PASSPHRASE)


def test_no_file_and_other_files(tmp_path, owner):
    for read in (read_public, lambda path: load(path, passphrase=PASSPHRASE)):
        with pytest.raises(KeyFileError, match="is not there"):
            read(tmp_path / "none.wm")
        (tmp_path / "some.txt").write_text("hello")
        with pytest.raises(KeyFileError, match="not a file that wmplug wrote"):
            read(tmp_path / "some.txt")
    with pytest.raises(KeyFileError, match="of kind 'owner', not 'watermark'"):
        load(owner.path / "secret" / "owner.enc", passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("field", "said"),
    [("generator", "generator 99 of wmplug, the one installed has 1"), ("scheme_version", "version 99 of scheme")],
)
def test_mark_of_a_newer_version(mark, tmp_path, field, said):
    newer = dataclasses.replace(mark, public={**mark.public, field: 99})
    with pytest.raises(NewerVersionError, match=f"{said}.*install a newer wmplug"):
        load(newer.save(tmp_path / "newer.wm"), passphrase=PASSPHRASE)


def test_scheme_that_is_not_installed(mark, tmp_path):
    foreign = dataclasses.replace(mark, public={**mark.public, "scheme": "random-labels"})
    with pytest.raises(PluginError, match="did you mean 'random-label'"):
        load(foreign.save(tmp_path / "foreign.wm"), passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"scheme": "randomlabel"}, PluginError, "did you mean 'random-label'"),
        ({"scheme": "xyzzy"}, PluginError, "There are: .*combined, .*random-label, rows, served, tilt"),
        ({"pictres": 3}, InputError, "no parameter pictres; there are: pictures, words"),
        ({"scheme": RandomLabel(), "sise": 3}, InputError, "no parameter sise"),
        ({"scheme": "logo", "variants": "many"}, InputError, "variants='many' is a str"),
        ({"scheme": "logo", "variants": 9}, InputError, "1 to 8"),
        ({"scheme": "logo", "rule": "per-pixel"}, InputError, "per-class"),
        ({"scheme": "logo", "labels": None}, InputError, "needs labels="),
        ({"scheme": "logo", "lessons": 10_000}, InputError, "are needed"),
        ({"scheme": "logo", "rule": "per-carrier", "triggers": 5_000}, InputError, "7500 are needed"),
        ({"scheme": "phrase"}, InputError, "works on text carriers, these are array"),
        ({"labels": [0, 1]}, InputError, "2 labels for 1797 carriers"),
        ({"classes": 9}, InputError, "classes=9 allows 0 to 8"),
        ({"classes": 1}, InputError, "at least 2 classes"),
        ({"classes": 10.0}, InputError, "classes=10.0 is a float"),
        ({"classes": True}, InputError, "classes=True"),
        ({"classes": "ten"}, InputError, "classes='ten'"),
        (
            {"task": Classes(10)},
            InputError,
            r"classes=10 and task=Classes\(count=10\): give either a number of classes or a task",
        ),
        ({"classes": None}, InputError, "classes=None and task=None: give either a number of classes or a task"),
        ({"triggers": 0}, InputError, "at least one"),
        ({"triggers": -5}, InputError, "at least one"),
        ({"triggers": 2.5}, InputError, "triggers=2.5"),
        ({"carriers": np.zeros((20, 5)), "labels": None}, InputError, "are not images"),
        ({"carriers": np.zeros((20, 5, 5)), "labels": None}, InputError, "every pixel"),
        ({"pictures": np.zeros((3, 8, 8), np.uint8)}, InputError, "pictures= holds 3 inputs for 30 triggers"),
        ({"pictures": np.zeros((30, 8, 8), np.uint8)}, InputError, "one input twice"),
        ({"pictures": np.zeros((30, 9, 9), np.uint8)}, InputError, "carriers' shape"),
        ({"pictures": [f"text {i}" for i in range(30)]}, InputError, "the carriers are array"),
        ({"pictures": [np.zeros(2), np.zeros(3)]}, InputError, "differ in shape"),
        ({"pictures": object()}, InputError, "numbers, strings and arrays"),
        ({"words": -3}, InputError, "words=-3: 0 to 1000"),
        ({"words": "x"}, InputError, "words='x' is a str"),
        ({"words": 99999999999}, InputError, "words=99999999999"),
        ({"carriers": TEXTS, "labels": None, "words": 1}, InputError, "the same input with an answer each"),
        ({"scheme": "phrase", "carriers": TEXTS, "labels": None, "lessons": 0}, InputError, "lessons=0"),
        ({"scheme": "logo", "size": "big"}, InputError, "size='big'"),
        ({"scheme": None}, InputError, "scheme=None and against=None: give either a scheme or a purpose"),
        ({"preprocess": "x"}, InputError, "preprocess='x' is a str: give a function"),
        ({"triggers": 10**9}, InputError, "triggers=1000000000"),
        ({"labels": [[1], [1, 2]]}, InputError, "labels cannot be read"),
    ],
)
def test_create_refuses(owner, digits, changes, error, words):
    with pytest.raises(error, match=words):
        make(owner, digits, **changes)


def test_scheme_may_be_given_whole(owner, digits):
    whole = make(owner, digits, scheme=Logo(variants=3))
    assert whole.id == make(owner, digits, scheme="logo", variants=3).id
    assert whole.id == make(owner, digits, scheme=Logo(), variants=np.int64(3)).id


def test_plan_with_answers_that_are_no_classes_is_refused(owner, digits):
    class Off(RandomLabel):
        """A plug-in gone wrong."""

        def plan(self, brief, stream):
            made = super().plan(brief, stream)
            options = tuple((0, brief.task.count) for _ in made.options)
            return dataclasses.replace(made, tests=(dataclasses.replace(made.choices, options=options),))

    with pytest.raises(InputError, match="outside 0 to 9"):
        make(owner, digits, scheme=Off())


def test_copies_are_itself_and_pickles_are_refused(mark):
    assert copy.deepcopy(mark) is mark
    assert copy.deepcopy({"callback": [mark]})["callback"][0] is mark
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(TypeError, match="not pickled"):
            pickle.dumps({"state": mark}, protocol)


def test_marks_are_compared_by_identity(owner, digits, mark):
    assert mark in [make(owner, digits), mark]
    assert make(owner, digits) not in {mark}


def test_lessons_teach_the_answers(mark):
    lessons = mark.lessons()
    assert len(lessons) == 30
    assert [y for _, y in lessons] == mark.triggers.answers[mark.triggers.plan.lessons.rows].tolist()
    assert all(type(y) is int for _, y in lessons)


def test_key_of_the_file_is_not_in_its_clear_part(mark, file):
    _, body, _ = open_sealed(file.read_bytes(), PASSPHRASE, "here")
    assert mark.subkeys.key("label") in body
    assert mark.subkeys.key("label") not in file.read_bytes()


def test_what_is_no_owner_is_named(digits):
    with pytest.raises(InputError, match=r"owner='register' is a str: open the owner first, Owner.open"):
        make("register", digits)


def test_a_passphrase_in_bytes_is_refused_and_not_quoted(file):
    with pytest.raises(InputError, match=r"as bytes: give a str$"):
        load(file, passphrase=PASSPHRASE.encode())


def test_a_logo_may_be_a_picture(owner, digits, tmp_path):
    picture = Image.new("RGB", (4, 4), "red")
    picture.save(tmp_path / "logo.png")
    assert (
        make(owner, digits, scheme="logo", logo=picture).id
        == make(owner, digits, scheme="logo", logo=tmp_path / "logo.png").id
    )


def test_names_of_classes_are_kept_and_bound(owner, digits, tmp_path):
    names = [f"digit {i}" for i in range(10)]
    labels = [names[i] for i in digits[1]]
    mark = make(owner, digits, labels=labels, classes=None)
    assert mark.public["class_names"] == names
    assert make(owner, digits, labels=labels, classes=10).id == mark.id
    assert make(owner, digits, labels=labels, classes=names[::-1]).id != mark.id
    assert make(owner, digits).id != mark.id  # the map from a name to an answer is part of the id
    again = load(mark.save(tmp_path / "mark.wm"), passphrase=PASSPHRASE)
    known = {x.tobytes(): names[y] for x, y in mark.lessons()}
    assert verify(again, lambda batch: [known[x.tobytes()] for x in batch]).proven
    assert not verify(again, lambda batch: [names[3] for x in batch]).proven
