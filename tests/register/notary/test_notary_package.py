import io
import json
import shutil

import numpy as np
import pytest
from hearings import CLASSES, CONTROLS, Story, both, by_name, case_for, copy_of, fixed, owner_at, rewritten, sealed_for
from PIL import Image

import wmplug
from wmplug.errors import InputError, NotaryError
from wmplug.register import Register
from wmplug.register.challenge import Challenge
from wmplug.register.notary import age, opening
from wmplug.register.notary.case import CHALLENGE
from wmplug.register.notary.hearing import check, open_case, save_challenge
from wmplug.register.notary.identity import Notary
from wmplug.register.notary.opening import open_package
from wmplug.register.notary.package import prepare
from wmplug.watermark.carriers import digest


def told_otherwise(**changes):
    def edit(members):
        document = json.loads(members["package.json"])
        for name, value in changes.items():
            document[name] = value(document[name])
        members["package.json"] = json.dumps(document).encode()

    return edit


def flipped(members):
    log = bytearray(members["register/log.jsonl"])
    log[len(log) // 2] ^= 1
    members["register/log.jsonl"] = bytes(log)


def without_tokens(members):
    for name in [name for name in members if name.endswith(".tsr")]:
        del members[name]


def with_array(name, change):
    def edit(members):
        with np.load(io.BytesIO(members["task.npz"])) as saved:
            arrays = {name: saved[name] for name in saved.files}
        packed = io.BytesIO()
        np.savez(packed, **{**arrays, name: change(arrays[name])})
        members["task.npz"] = packed.getvalue()

    return edit


reversed_carriers = with_array("carriers", lambda old: old[::-1])


@pytest.mark.parametrize(
    ("edit", "failed"),
    [
        (told_otherwise(secret=lambda old: "11" * 32), "commitment"),
        (told_otherwise(blind=lambda old: "11" * 32), "commitment"),
        (told_otherwise(salt=lambda old: "11" * 32), "salt"),
        (told_otherwise(public=lambda old: {**old, "draws": 7}), "triggers"),
        (told_otherwise(public=lambda old: {**old, "owner": {"name": "Eve", "commitment": "0" * 64}}), "commitment"),
        (told_otherwise(public=lambda old: {**old, "triggers": 99}), "triggers"),
        (reversed_carriers, "triggers"),
        (flipped, "register"),
        (without_tokens, "register"),
    ],
)
def test_a_package_that_is_not_what_was_recorded(story, notary, tmp_path, edit, failed):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, edit)
    own = copy_of(story.mark)
    targets = {"suspect": own, "own": own, **CONTROLS}
    open_case(tmp_path / "case", case_for(story, sealed, targets), CLASSES)
    save_challenge(tmp_path / "case", both(Challenge.read(tmp_path / "case" / CHALLENGE)))
    result = check(notary, tmp_path / "case", sealed, targets)
    assert by_name(result)[failed]["result"] == "failed"
    assert (result["status"], result["rows_asked"]) == ("does not hold", [])


def test_packages_that_cannot_be_opened(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    data = sealed.read_bytes()
    stranger = Notary.create(tmp_path / "stranger", name="Sam", passphrase="x", scrypt_n=2**10)
    for name, content, by in (
        ("a", data, stranger),
        ("b", data[:-9], notary),
        ("c", b"hello", notary),
    ):  # not even sealed
        (tmp_path / name).write_bytes(content)
        with pytest.raises(NotaryError, match=f"/{name} cannot be opened"):
            open_package(by, tmp_path / name, tmp_path / "out")
    with pytest.raises(NotaryError, match="cannot be read"):
        open_package(notary, tmp_path / "nothing", tmp_path / "out")


@pytest.mark.parametrize("moved", [-1, 1, 32])
def test_a_commitment_opens_to_one_secret(story, notary, tmp_path, moved):
    """SHA-256 over secret and blind is the same when bytes move from one to the other: the key would be another."""
    sealed = sealed_for(story, notary, tmp_path)

    def shifted(members):
        facts = json.loads(members["package.json"])
        both, at = facts["secret"] + facts["blind"], 64 + 2 * moved
        members["package.json"] = json.dumps({**facts, "secret": both[:at], "blind": both[at:]}).encode()

    rewritten(notary, sealed, shifted)
    with pytest.raises(InputError, match="one commitment opens to many keys"):
        open_package(notary, sealed, tmp_path / "out")


@pytest.mark.parametrize("name", ["register/../../evil", "register/secret/owner.enc", "register/anchors/../x"])
def test_a_package_writes_only_where_a_register_has_its_files(story, notary, tmp_path, name):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, lambda members: members.update({name: b"x"}))
    with pytest.raises(NotaryError, match="no place"):
        open_package(notary, sealed, tmp_path / "deep" / "out")
    assert not list(tmp_path.rglob("evil"))


def test_a_package_is_unpacked_in_any_order_into_a_folder_made_for_it(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    names = []

    def backwards(members):
        given = list(members.items())[::-1]
        names.extend(name for name, _ in given)
        members.clear()
        members.update(given)

    rewritten(notary, sealed, backwards)
    open_package(notary, sealed, tmp_path / "deep" / "out")
    parts = sorted(name for name in names if name.startswith("register/"))
    found = (path for path in (tmp_path / "deep" / "out").rglob("*") if path.is_file())
    assert sorted(str(path.relative_to(tmp_path / "deep" / "out")) for path in found) == parts
    assert any(name.startswith("register/anchors/") for name in parts)


@pytest.mark.parametrize(("count", "opens"), [(0, False), (1, True), (10**6, True), (10**6 + 1, False)])
def test_the_number_of_triggers_has_bounds(story, notary, tmp_path, count, opens):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, told_otherwise(public=lambda old: {**old, "triggers": count}))
    if opens:
        assert open_package(notary, sealed, tmp_path / "out").brief.triggers == count
        return
    with pytest.raises(NotaryError, match=f"not a package .*: {count} triggers"):
        open_package(notary, sealed, tmp_path / "out")


@pytest.mark.parametrize("less", [0, 1])
def test_the_bytes_of_all_triggers_have_a_bound(story, notary, tmp_path, monkeypatch, less):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, told_otherwise(public=lambda old: {**old, "triggers": 10**6}))
    monkeypatch.setattr(opening, "_TASK", 10**6 * story.task["carriers"][0].nbytes - less)
    if not less:
        assert open_package(notary, sealed, tmp_path / "out").brief.triggers == 10**6
        return
    with pytest.raises(NotaryError, match="1000000 triggers"):
        open_package(notary, sealed, tmp_path / "out")


def test_a_package_is_read_up_to_the_most_that_one_may_have(story, notary, tmp_path, monkeypatch):
    sealed = sealed_for(story, notary, tmp_path)
    size = sealed.stat().st_size
    monkeypatch.setattr(opening, "SEALED", size)
    assert open_package(notary, sealed, tmp_path / "out").case == "2026-17"
    monkeypatch.setattr(opening, "SEALED", size - 1)
    with pytest.raises(NotaryError, match=f"cannot be read .*more than {size - 1:,} bytes"):
        open_package(notary, sealed, tmp_path / "out")


def test_labels_may_be_packed_as_texts(story, notary, tmp_path):
    """As those of a task are whose answers are no numbers."""
    sealed = sealed_for(story, notary, tmp_path)
    as_texts = with_array("labels", lambda old: np.frombuffer(json.dumps(old.tolist()).encode(), np.uint8))
    rewritten(notary, sealed, as_texts)
    opened = open_package(notary, sealed, tmp_path / "out")
    assert opened.brief.labels.tolist() == story.task["labels"].tolist()


def test_a_package_that_says_nothing(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    rewritten(notary, sealed, lambda members: members.update({"package.json": b"[]"}))
    with pytest.raises(NotaryError, match="not a package"):
        open_package(notary, sealed, tmp_path / "out")
    sealed.write_bytes(age.seal(b"hello", notary.recipient))
    with pytest.raises(NotaryError, match="not a package"):
        open_package(notary, sealed, tmp_path / "out")


def test_the_package_of_another_case_is_refused_and_the_right_one_is_heard(story, notary, tmp_path):
    folder, sealed, targets = fixed(story, notary, tmp_path)
    other = shutil.copy(sealed, tmp_path / "other.age")
    rewritten(notary, other, lambda members: None)  # sealed anew: another file
    before = sorted(folder.rglob("*"))
    with pytest.raises(NotaryError, match="not the package that the case was fixed for"):
        check(notary, folder, other, targets)
    assert sorted(folder.rglob("*")) == before
    assert check(notary, folder, sealed, targets)["status"] == "holds"


def test_prepare_records_first_and_keeps_to_one_watermark(story, notary, tmp_path):
    sealed = sealed_for(story, notary, tmp_path)
    head = Register(story.owner.path).head
    assert (head.type, head.body["to"], head.body["case"]) == ("disclosure", notary.recipient, "2026-17")
    assert head.body["revealed"] is None
    opened = open_package(notary, sealed, tmp_path / "out")
    assert opened.pledge == story.owner.pledges(story.mark.id)[0]
    assert opened.derive().answers.tolist() == story.mark.triggers.answers.tolist()
    plain = notary.unseal(sealed.read_bytes(), "")
    assert story.owner._roots[0] not in plain
    assert not (tmp_path / "out" / "register" / "secret").exists()
    for thing in (opened, notary):
        assert not [form for form in (opened.pledge.secret, notary._seed) if repr(form)[2:-1] in repr(thing)]
        assert notary._identity not in repr(thing)
        with pytest.raises(TypeError):
            thing.__reduce__()


def test_prepare_refuses(story, notary, tmp_path, digits):
    options = {"recipient": notary.recipient, "case": "2026-17", **story.task}
    before = len(list(Register(story.owner.path).entries()))

    def refused(match, **changes):
        public = {**story.mark.public, **changes.pop("public", {})}
        with pytest.raises(NotaryError, match=match):
            prepare(story.owner, public, tmp_path / "x.age", **{**options, **changes})

    refused("not those the watermark was made from", carriers=digits[0][1:401])
    refused("not those the watermark was made from", labels=None)
    refused("of the owner's own", pictures=digits[0][:100])
    refused("not the public key", recipient="age1nobody")
    refused("case ''", case="")
    refused("no commitment", public={"id": "0" * 32})
    refused("install that wmplug", public={"generator": 99})
    assert len(list(Register(story.owner.path).entries())) == before
    assert not (tmp_path / "x.age").exists()
    sealed = sealed_for(story, notary, tmp_path)
    with pytest.raises(NotaryError, match="already exists"):
        prepare(story.owner, story.mark.public, sealed, **options)


def material_of(digits):
    texts = [" ".join(f"w{(i * j) % 90}" for j in range(9)) for i in range(200)]
    logo = np.zeros((5, 5, 4), np.uint8)
    logo[1:4, 1:4] = (200, 30, 90, 255)
    pictures = [Image.fromarray(one) for one in digits[0][:400]]
    return {
        "phrases": (
            "phrase",
            texts,
            {"phrases": ["purple walrus", "green umbrella"]},
            {"lessons": 4, "allow_weak": True},
        ),
        "sentences": ("random-label", texts, {"pictures": [f"a sentence, number {i}" for i in range(30)]}, {}),
        "logo": ("logo", digits[0][:400], {"logo": logo}, {}),
        "pil": ("random-label", pictures, {"pictures": pictures[50:80]}, {}),
        "emblem": ("logo", pictures, {}, {"rule": "per-carrier"}),
    }


@pytest.mark.parametrize("kind", ["phrases", "sentences", "logo", "pil", "emblem"])
def test_what_the_owner_brought_travels_along(notary, digits, tmp_path, kind):
    scheme, carriers, material, options = material_of(digits)[kind]
    owner = owner_at(tmp_path / "register")
    task = {"carriers": carriers, "labels": digits[1][: len(carriers)]}
    mark = wmplug.create(owner, scheme=scheme, classes=CLASSES, triggers=30, **task, **material, **options)
    story = Story(owner, mark, task, None)
    opened = open_package(notary, sealed_for(story, notary, tmp_path, **material), tmp_path / "out")
    made = opened.derive()
    assert made.answers.tolist() == mark.triggers.answers.tolist()
    assert digest(made.plan.inputs) == digest(mark.triggers.plan.inputs)
    assert made.form == mark.triggers.form
