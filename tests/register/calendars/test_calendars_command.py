"""The command line, with the package and without it."""

import importlib
import json
import subprocess
import sys

import pytest
from blocks import path_of

from wmplug.errors import PluginError


def test_without_the_package_the_extra_is_named(without_package):
    with pytest.raises(PluginError, match=r"pip install 'wmplug\[ots\]'"):
        importlib.import_module("wmplug.register.calendars")


def test_the_register_does_not_need_the_package():
    code = "import wmplug.register, wmplug.cli, sys; sys.exit('opentimestamps' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_from_the_command_line(terminal, register, calendar, tmp_path):
    assert "pending; some hours later" in terminal("anchor", "--ots", calendar.url).stdout
    calendar.mine(900_000)
    (entry,) = json.loads(terminal("upgrade", "--json").stdout)
    assert entry["body"]["file"].endswith(".1.ots")
    assert "no proof was completed" in terminal("upgrade").stdout
    shown = terminal("check").stdout
    assert "inconclusive: entry 2: needs the header of block 900000" in shown
    assert "NOT ATTESTED: no entry is dated" in shown
    headers = tmp_path / "headers.json"
    headers.write_text(json.dumps({height: header.hex() for height, header in calendar.headers.items()}))
    shown = terminal("check", "--headers", headers).stdout
    assert "entries 0 to 0 existed at 2026-03-04 05:06:07 UTC: Bitcoin block 900000" in shown
    assert "NOT ATTESTED: 2 at the end are not dated" in shown
    path_of(register, register.head).write_bytes(b"")
    assert "proof-replaced" in terminal("check", "--headers", headers, code=1).stdout


def test_an_authority_and_a_calendar_are_asked_together(terminal, register, calendar, lab, tmp_path):
    (tmp_path / "trust.json").write_text(json.dumps(lab.trust.to_json()))
    told = json.loads(terminal("anchor", "--trust", tmp_path / "trust.json", "--ots", calendar.url, "--json").stdout)
    assert [(set(one) & {"tsa", "ots"}, one["entry"]["body"]["head"]) for one in told] == [({"tsa"}, 0), ({"ots"}, 1)]
    report = json.loads(terminal("check", "--json").stdout)
    assert [(stamp["head"], stamp["lab"]) for stamp in report["stamps"]] == [(0, True)]
    assert [finding["code"] for finding in report["findings"]] == ["pending"]


def test_a_calendar_that_does_not_answer_ends_with_1(terminal, offline):
    assert "try again later" in terminal("anchor", "--ots", offline, code=1).stderr
    (told,) = json.loads(terminal("anchor", "--ots", offline, "--json", code=1).stdout)
    assert told["ots"] == [offline]
    assert told["entry"] is None


def test_whoever_lacks_the_package_checks_the_rest(terminal, register, without_package, tmp_path):
    register.append("retimestamp", {"kind": "opentimestamps"})
    shown = terminal("check").stdout
    assert "[calendars-unchecked]" in shown
    assert "wmplug[ots]" in shown
    (tmp_path / "headers.json").write_text("{}")
    assert "wmplug[ots]" in terminal("check", "--headers", tmp_path / "headers.json", code=2).stderr
