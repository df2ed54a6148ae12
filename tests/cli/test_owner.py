import stat

import pytest
from test_init import cost_of, typed

from wmplug import Owner
from wmplug.register import Register, Signer
from wmplug.register.checking import check
from wmplug.register.recovery import rotate, split

PASSPHRASE = "correct horse battery staple"
NEW = "a new beginning"


@pytest.fixture
def ada(tmp_path):
    made = Owner.create(tmp_path / "r", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    Register.of(made)
    return made


def keyid(owner):
    return Signer(owner.signing_seed()).keyid


def opened(owner, passphrase=PASSPHRASE):
    return Owner.open(owner.path, passphrase=passphrase)


def test_rotate(terminal, ada):
    told = terminal.json("owner", "rotate", "--register", ada.path)
    assert told == {"register": str(ada.path), "keyid": keyid(opened(ada))}
    assert told["keyid"] != keyid(ada)
    shown = terminal("owner", "rotate", "--register", ada.path)
    assert keyid(opened(ada)) in shown.stdout
    assert "Shares split before are void" in shown.stderr
    assert check(ada.path).counts["key.rotated"] == 2
    assert not any(root.hex() in terminal.printed for root in opened(ada).roots())


def test_rotate_under_a_new_passphrase(terminal, ada, monkeypatch):
    command = ["owner", "rotate", "--new-passphrase", "--register", ada.path]
    assert "set WMPLUG_NEW_PASSPHRASE" in terminal.error(*command)
    monkeypatch.setenv("WMPLUG_NEW_PASSPHRASE", NEW)
    assert "still open with the passphrase from before" in terminal(*command).stderr
    assert len(opened(ada, NEW).roots()) == 2
    assert "wrong passphrase" in terminal.error(*command)
    assert NEW not in terminal.printed


def test_without_the_flag_the_passphrase_stays(terminal, ada, monkeypatch):
    monkeypatch.setenv("WMPLUG_NEW_PASSPHRASE", NEW)
    terminal("owner", "rotate", "--register", ada.path)
    assert len(opened(ada).roots()) == 2


def test_revoke(terminal, ada):
    reason = ["--reason", "retired", "--register", ada.path]
    assert "`wmplug owner rotate` first" in terminal.error("owner", "revoke", *reason)
    assert "no entry introduces a key 'aa'" in terminal.error("owner", "revoke", "--key", "aa", *reason)
    rotate(ada)
    told = terminal.json("owner", "revoke", "--key", keyid(ada), "--since", "2026-01-31", *reason)
    body = {"keyid": keyid(ada), "reason": "retired", "since": "2026-01-31T00:00:00Z"}
    assert told == {"register": str(ada.path), "seq": 2, **body}
    assert f"key {keyid(ada)} is revoked (entry 3)" in terminal("owner", "revoke", "--key", keyid(ada), *reason).stdout


def test_compromised(terminal, ada, monkeypatch):
    monkeypatch.setenv("WMPLUG_NEW_PASSPHRASE", NEW)
    options = ["--compromised", "--reason", "laptop stolen", "--register", ada.path]
    assert "give one of the two" in terminal.error("owner", "revoke", "--key", keyid(ada), *options)
    assert "--new-passphrase goes with" in terminal.error("owner", "revoke", "--new-passphrase", *options[1:])
    told = terminal.json("owner", "revoke", "--new-passphrase", *options)
    assert told["keyid"] == keyid(opened(ada, NEW))
    (finding,) = check(ada.path).findings
    assert (finding.code, finding.seq) == ("signed-by-compromised-key", 0)


def test_split_and_combine_over_files(terminal, ada, monkeypatch, tmp_path):
    folder = tmp_path / "sheets"
    shown = terminal("owner", "split", "--out", folder, "--register", ada.path)
    files = [folder / f"share-{number}.txt" for number in (1, 2, 3)]
    assert shown.stdout.split() == [str(file) for file in files]
    words = [file.read_text().splitlines()[1] for file in files]
    assert all(len(sheet.split()) == 33 for sheet in words)
    assert "any 2 of 3 shares; this is share 2" in files[1].read_text()
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert "already exists" in terminal.error("owner", "split", "--out", folder, "--register", ada.path)
    (ada.path / "secret" / "owner.enc").unlink()
    monkeypatch.setenv("WMPLUG_NEW_PASSPHRASE", NEW)
    given = ["--share", files[2], "--share", files[0], "--register", ada.path]
    told = terminal.json("owner", "combine", *given)
    assert told == {"register": str(ada.path), "name": "Ada", "commitment": ada.commitment}
    assert opened(ada, NEW).roots() == ada.roots()
    assert "under the new passphrase" in terminal("owner", "combine", *given).stdout
    assert not any(sheet[:40] in terminal.printed for sheet in words)
    assert NEW not in terminal.printed


def test_split_prints_each_share_once(terminal, ada):
    shown = terminal("owner", "split", "--shares", 4, "--threshold", 3, "--register", ada.path)
    lines = shown.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["share 1", "share 2", "share 3", "share 4"]
    assert all(len(line.split(": ")[1].split()) == 33 for line in lines)
    assert lines[0].split(": ")[1] not in shown.stderr
    told = terminal.json("owner", "split", "--register", ada.path)
    assert (len(told["shares"]), told["threshold"]) == (3, 2)
    assert "from 2 to 16" in terminal.error("owner", "split", "--threshold", 4, "--register", ada.path)


def test_shares_that_do_not_do_are_named_and_not_shown(terminal, ada, tmp_path):
    words = split(ada)[0].split()
    file = tmp_path / "share.txt"
    for text, expected in {
        " ".join(words): "1 of the 2 shares",
        " ".join(words[:-1]): "share 1 has 32 words",
        " ".join([*words[:-1], "xylophon"]): "share 1: word 33",
        "# nothing but this\n": "share 1 has 0 words",
        "\udcff": "share 1 has 0 words",
    }.items():
        file.write_bytes(text.encode(errors="surrogateescape"))
        said = terminal.error("owner", "combine", "--share", file, "--register", ada.path)
        assert expected in said
        assert " ".join(words[:2]) not in said
    assert "No such file" in terminal.error("owner", "combine", "--share", tmp_path / "no", "--register", ada.path)
    assert "--share FILE" in terminal.error("owner", "combine", "--register", ada.path)
    assert opened(ada).roots() == ada.roots()


def test_shares_are_asked_for_and_not_shown(ada, tmp_path):
    first, _, third = split(ada)
    (ada.path / "secret" / "owner.enc").unlink()
    spoilt = " ".join(reversed(first.split()))
    answers = [spoilt, first, third, NEW, NEW]
    code, shown = typed(["owner", "combine", "--register", "r"], answers, tmp_path)
    assert code == 0, shown
    assert "share 1: its checksum does not fit" in shown
    for answer in answers:
        assert " ".join(answer.split()[:2]) not in shown
    assert opened(ada, NEW).roots() == ada.roots()
    assert cost_of(ada.path / "secret" / "owner.enc") == 2**17


def test_no_command_takes_words_or_a_passphrase_as_an_argument(terminal):
    for command in ("rotate", "revoke", "split", "combine"):
        shown = terminal("owner", command, "--help").stdout
        assert "--passphrase" not in shown
        assert "Arguments" not in shown
