"""What an earlier release wrote stays readable: tests/vectors/frozen/make.py made it, once."""

import runpy
import shutil
from pathlib import Path

import pytest

import wmplug
from wmplug.register import Register
from wmplug.register.checking import check

FROZEN = Path(__file__).parent / "vectors" / "frozen"
MAKE = runpy.run_path(str(FROZEN / "make.py"))
RELEASES = sorted(folder.name for folder in FROZEN.iterdir() if folder.is_dir() and folder.name[0].isdigit())


@pytest.fixture(params=RELEASES)
def release(request, tmp_path):
    return shutil.copytree(FROZEN / request.param, tmp_path / "release")


def test_there_is_one_for_this_release():
    assert wmplug.__version__ in RELEASES


def test_a_register_checks_and_can_be_gone_on_with(release):
    before = check(release / "register")
    assert before.ok
    assert before.entries == 7
    owner = wmplug.Owner.open(release / "register", passphrase=MAKE["PASSPHRASE"])
    Register.of(owner).append("artwork.committed", {})
    assert check(release / "register").ok


def test_a_watermark_opens_and_is_made_again_the_same(release):
    words = MAKE["PASSPHRASE"]
    mark = wmplug.load(release / "mark.wm", passphrase=words, register=release / "register")
    owner = wmplug.Owner.open(release / "register", passphrase=words)
    again = wmplug.create(owner, scheme="random-label", carriers=MAKE["carriers"](), classes=10, triggers=12)
    assert again.public == mark.public
    assert (again.triggers.answers == mark.triggers.answers).all()
    assert (again.triggers.plan.inputs == mark.triggers.plan.inputs).all()
    with pytest.raises(wmplug.WmplugError):
        wmplug.load(release / "mark.wm", passphrase="another")
