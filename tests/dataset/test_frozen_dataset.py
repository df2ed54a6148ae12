"""What an earlier release made of training sets stays as it is; see tests/test_frozen.py."""

import json
import re
import shutil

import pytest
from vectors.frozen import acts, cases, facts
from vectors.frozen.contract import FROZEN, RELEASES, MarkContract, assert_alike, copied, names

import wmplug
from wmplug.register.assets.dataset import dataset as committed
from wmplug.register.checking import check

DRAWN = ("canaries-topics.csv", "canaries-numbers.csv", "copies")  # without references that a machine trains


@pytest.fixture(params=names("dataset"), ids="/".join)
def frozen(request, tmp_path):
    return copied(request.param[0], "dataset", request.param[1], cases.dataset_marks(), tmp_path)


@pytest.fixture(params=names("dataset", having="verdicts"), ids="/".join)
def judged(request, tmp_path):
    return copied(request.param[0], "dataset", request.param[1], cases.dataset_marks(), tmp_path)


class TestDatasetMarks(MarkContract):
    def test_the_same_is_published(self, frozen):
        given = frozen.case.options
        assert facts.changes(frozen.load(), given["carriers"], given["labels"]) == frozen.kept["changes"]


def test_every_case_is_frozen():
    assert {name for _, name in names("dataset")} == set(cases.dataset_marks())


@pytest.fixture(params=RELEASES)
def folder(request, tmp_path):
    return shutil.copytree(FROZEN / request.param / "dataset", tmp_path / "dataset")


def kept(folder):
    return json.loads((folder / "facts.json").read_text())


def copies_in(folder):
    return sorted(path for path in folder.rglob("*.csv") if path.with_name(f"{path.name}.wm").exists())


def test_marks_beside_tables_open_as_they_were(folder):
    found = {
        f"{path.relative_to(folder)}.wm": facts.facts(
            wmplug.load(f"{path}.wm", passphrase=cases.PASSPHRASE, register=folder / "register")
        )
        for path in copies_in(folder)
    }
    assert found == kept(folder)["tables"]
    assert len(found) == 5
    assert check(folder / "register").ok


def test_manifests_are_of_the_copies_beside_them(folder):
    for path in copies_in(folder):
        manifest = json.loads(path.with_name(f"{path.name}.manifest.json").read_text())
        assert manifest["dataset"] == committed(path)
        assert manifest["root"] == wmplug.load(f"{path}.wm", passphrase=cases.PASSPHRASE).public["root"]


def test_tables_are_marked_again_the_same(folder, tmp_path):
    owner = wmplug.Owner.open(folder / "register", passphrase=cases.PASSPHRASE)
    (tmp_path / "again").mkdir()
    acts.mark_tables(owner, folder, tmp_path / "again", DRAWN)
    for path in sorted((tmp_path / "again").rglob("*.csv")):
        before = folder / path.relative_to(tmp_path / "again")
        # Version 0.1.0 wrote the numbers of added records as 40.0, and those beside them as 40.
        assert path.read_text() == re.sub(r"(?m)(?<=[0-9])\.0(?=,)", "", before.read_text())
        one, other = (json.loads(file.with_name(f"{file.name}.manifest.json").read_text()) for file in (path, before))
        same = path.read_bytes() == before.read_bytes()
        later = {"wmplug": None} | ({} if same else {"dataset": None})
        assert {**one, **later} == {**other, **later}
        held = [facts.sealed(file.with_name(f"{file.name}.wm"), cases.PASSPHRASE) for file in (path, before)]
        for one in held:
            del one["arrays"]["record"]  # where the register is
        assert held[0] == held[1]


def test_a_copy_is_traced_the_same(folder):
    found = facts.plain(acts.traced(folder))
    later = {name: found.pop(name) for name in ("choices", "attested")}  # which a trace tells since
    assert_alike(found, kept(folder)["trace"])
    # The registers of both copies lie elsewhere by now, so nobody counted the tries.
    assert ([choice["what"] for choice in later["choices"]], later["attested"]) == (["tries"], False)
