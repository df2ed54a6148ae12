import csv
import sys

import numpy as np
import pytest

from wmplug import Owner

PASSPHRASE = "correct horse battery staple"

SUSPECTS = """
import numpy as np
from sklearn.ensemble import RandomForestClassifier

def trained(path):
    rows = np.genfromtxt(path, delimiter=",", skip_header=1)
    return RandomForestClassifier(100, random_state=0).fit(rows[:, :-1], rows[:, -1].astype(int))

copy = trained("out.csv").predict
twin = trained("set.csv").predict
"""
SPLIT = """
from suspects import trained
leaked = trained("copies/Ben.csv").predict
"""


@pytest.fixture
def files(tmp_path, digits):
    """A register, and a table of 600 digits."""
    Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    rows = np.column_stack([digits[0].reshape(len(digits[0]), -1), digits[1]])[:600]
    with (tmp_path / "set.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"p{i}" for i in range(64)), "digit"])
        writer.writerows(rows.tolist())
    (tmp_path / "suspects.py").write_text(SUSPECTS)
    (tmp_path / "split.py").write_text(SPLIT)
    yield tmp_path
    for name in ("suspects", "split"):
        sys.modules.pop(name, None)


MARK = ("--label", "digit", "--scheme", "canaries", "--share", 0.05)


def test_mark_verify_trace_find(terminal, files):
    (made,) = terminal.json("dataset", "mark", "set.csv", "out.csv", *MARK)
    assert (made["records"], made["added"], made["copy"]) == (630, 30, "")
    found = terminal.json("dataset", "verify", "out.csv.wm", "suspects:copy")
    assert found["state"] == "proven"
    assert found["p_is"] == "exact"
    assert "inconclusive" in terminal("dataset", "verify", "out.csv.wm", "suspects:twin", code=1).stdout

    said = terminal("dataset", "mark", "set.csv", "copies", *MARK, "--copies", "Anna,Ben,Carla").stdout
    assert said.count("630 records of 10 classes, 0 changed, 30 added; 30 draws carry the mark") == 3
    marks = [f"copies/{name}.csv.wm" for name in ("Anna", "Ben", "Carla")]
    traced = terminal.json("dataset", "trace", *marks, "split:leaked")
    assert traced["accused"] == ["Ben"]
    assert traced["copies"][0]["name"] == "Ben"
    assert "no copy of 3 can be named" in terminal("dataset", "trace", *marks, "suspects:twin", code=1).stdout

    held = terminal.json("dataset", "find", *marks, "copies/Carla.csv", "--label", "digit", "--exact")
    assert held["sources"] == ["Carla"]
    assert terminal.json("dataset", "find", *marks, "set.csv", "--label", "digit", "--exact", code=1)["sources"] == []


def test_what_a_mark_did_is_compared(terminal, files):
    terminal("dataset", "mark", "set.csv", "out.csv", *MARK)
    found = terminal.json("dataset", "compare", "set.csv", "out.csv", "--label", "digit")
    assert (found["records"], found["added"], found["relabelled"], found["changed"]) == (600, 30, 0, 0)
    assert "30 added" in terminal("dataset", "compare", "set.csv", "out.csv", "--label", "digit").stdout
    words = terminal.error("dataset", "compare", "set.csv", "out.csv", "--label", "digit", "--out", "shown.png")
    assert "no picture changed" in words


def test_nothing_secret_is_printed(terminal, files):
    terminal("dataset", "mark", "set.csv", "out.csv", *MARK)
    assert PASSPHRASE not in terminal.printed
    assert "KeyStream" not in terminal.printed


def test_what_cannot_be_done_is_one_line(terminal, files):
    assert "does not exist" in terminal.error("dataset", "mark", "nowhere.csv", "out.csv")
    assert "marks a model in training" in terminal.error("dataset", "mark", "set.csv", "out.csv", "--scheme", "phrase")
    assert "'colour=1'" in terminal.error("dataset", "mark", "set.csv", "out.csv", *MARK, "--set", "colour=1")
    terminal("dataset", "mark", "set.csv", "out.csv", *MARK)
    assert "already exists" in terminal.error("dataset", "mark", "set.csv", "out.csv", *MARK)
    assert "second watermark named" in terminal.error("dataset", "trace", "out.csv.wm", "out.csv.wm", "suspects:twin")


def test_what_was_taken_for_what_is_told_first(terminal, files):
    (made,) = terminal.json("dataset", "mark", "set.csv", "one.csv", *MARK)
    roles = {one["part"]: one["role"] for one in made["taken"]}
    assert roles == {**{f"p{i}": "numbers" for i in range(64)}, "digit": "label"}
    said = terminal("dataset", "mark", "set.csv", "two.csv", *MARK).stderr
    assert "p7 and 56 more" in " ".join(said.split())
    (files / "odd.csv").write_text("id,a,digit\n" + "".join(f"{row},{row % 7},{row % 3}\n" for row in range(90)))
    words = terminal.error("dataset", "mark", "odd.csv", "three.csv", *MARK)
    assert "has the name of an identifier" in words
    assert "--columns" in words
    assert not (files / "three.csv").exists()


def test_files_that_nobody_can_judge_are_kept_if_asked_for(terminal, files, patches_folder):
    words = terminal("dataset", "mark", "pictures", "copy", "--scheme", "twins", "--share", 0.1, code=2).stderr
    assert "order.txt" in words
    assert "--keep-files" in words
    terminal("dataset", "mark", "pictures", "copy", "--scheme", "twins", "--share", 0.4, "--keep-files")
    assert (files / "copy" / "order.txt").read_text() == "first second"


@pytest.fixture
def patches_folder(files, digits):
    from PIL import Image

    for number, (image, label) in enumerate(zip(digits[0][:80], digits[1][:80], strict=True)):
        place = files / "pictures" / f"{'even' if label % 2 == 0 else 'odd'}" / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image).reshape(8, 8).astype(np.uint8) * 15).save(place)
    (files / "pictures" / "order.txt").write_text("first second")
