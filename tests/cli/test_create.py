import csv
import io
import json
import os
import stat

import numpy as np
import pytest
from PIL import Image

import wmplug
from wmplug.cli import sheet
from wmplug.cli.parameters import read_parameters
from wmplug.errors import InputError

PASSPHRASE = "correct horse battery staple"


def load(path):
    return wmplug.load(path, passphrase=PASSPHRASE)


def test_create_writes_the_mark_that_the_library_makes(terminal, owner, digits, pictures, tmp_path):
    out = tmp_path / "a.wm"
    options = ["--register", owner.path, "--triggers", 50, "--set", "variants=3", "--set", "rule=per-carrier"]
    told = terminal.json("create", "--scheme", "logo", *pictures, *options, "--out", out)
    images, labels = digits
    same = wmplug.create(
        owner,
        scheme="logo",
        carriers=images[:300],
        labels=labels[:300],
        classes=10,
        triggers=50,
        variants=3,
        rule="per-carrier",
    )
    assert told["root"] == load(out).public["root"] == same.public["root"]
    assert told["file"] == str(out)
    assert PASSPHRASE not in terminal.printed


def test_create_does_not_replace_another_mark(terminal, owner, pictures, file):
    before = file.read_bytes()
    words = ["create", "--scheme", "random-label", *pictures, "--register", owner.path, "--out", file]
    assert str(file) in terminal.error(*words, "--triggers", 20)
    assert file.read_bytes() == before
    assert terminal.json(*words)["root"] == load(file).public["root"]


def test_the_owners_logo_is_stamped(terminal, owner, pictures, tmp_path):
    Image.new("RGB", (4, 4), "red").save(tmp_path / "logo.png")
    words = ["create", "--scheme", "logo", *pictures, "--register", owner.path, "--set", "lessons=5"]
    terminal(*words, "--logo", tmp_path / "logo.png", "--out", tmp_path / "a.wm")
    parameters = wmplug.read_public(tmp_path / "a.wm")["parameters"]
    assert parameters["logo"].startswith("sha256:")
    assert "cannot be read as a picture" in terminal.error(
        *words, "--logo", tmp_path / "labels.npy", "--out", tmp_path / "b.wm"
    )


SENTENCES = [f"word{i} word{i + 1} goes to word{i + 2} with word{i + 3}" for i in range(0, 400, 4)] * 3


def test_texts_and_their_labels_come_from_csv(terminal, owner, tmp_path):
    with (tmp_path / "texts.csv").open("w", newline="") as target:
        rows = csv.writer(target)
        rows.writerow(["text", "label"])
        rows.writerows([(text, "spam" if i % 3 else "ham") for i, text in enumerate(SENTENCES)])
    words = ["create", "--scheme", "random-label", "--carriers", tmp_path / "texts.csv", "--classes", 2]
    told = terminal.json(*words, "--register", owner.path, "--out", tmp_path / "a.wm")
    assert told["class_names"] == ["ham", "spam"]
    assert told["form"] == "text"
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    (tmp_path / "labels.txt").write_text("\n".join(str(int(i % 3 > 0)) for i in range(len(SENTENCES))))
    words[4:5] = [tmp_path / "texts.txt", "--labels", tmp_path / "labels.txt"]
    again = terminal.json(*words, "--register", owner.path, "--out", tmp_path / "b.wm")
    assert again["class_names"] == []
    assert again["id"] != told["id"]  # which name is which class is bound
    words.remove("--classes")
    words.remove(2)
    assert "give --classes" in terminal.error(*words, "--register", owner.path, "--out", tmp_path / "c.wm")


def test_a_folder_of_pictures_is_labelled_by_its_sub_folders(terminal, owner, digits, tmp_path):
    images, labels = digits
    for i in range(40):
        folder = tmp_path / "art" / f"class-{labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i]).save(folder / f"{i}.png")
    words = ["--carriers", tmp_path / "art", "--classes", 10, "--register", owner.path, "--triggers", 20]
    told = terminal.json("create", "--scheme", "random-label", *words, "--out", tmp_path / "a.wm")
    assert told["class_names"] == [f"class-{i}" for i in range(10)]
    assert told["form"] == "pil"
    again = ["create", "--scheme", "random-label", *words, "--out", tmp_path / "b.wm", "--set"]
    assert "none does not exist" in terminal.error(*again, f"pictures=@{tmp_path}/none")
    own = terminal.json(*again, f"pictures=@{tmp_path}/art")
    assert own["parameters"]["pictures"] != told["parameters"]["pictures"]


def test_npz_holds_carriers_and_labels(terminal, owner, digits, tmp_path):
    np.savez(tmp_path / "all.npz", x=digits[0][:300], y=digits[1][:300])
    words = ["create", "--scheme", "random-label", "--classes", 10, "--register", owner.path]
    told = terminal.json(*words, "--carriers", tmp_path / "all.npz", "--out", tmp_path / "a.wm")
    assert told["labels"] is not None
    np.savez(tmp_path / "none.npz", pixels=digits[0][:300])
    assert "name the carriers carriers or x or images" in terminal.error(
        *words, "--carriers", tmp_path / "none.npz", "--out", tmp_path / "b.wm"
    )


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--carriers": "nowhere.npy"}, "does not exist"),
        ({"--carriers": "broken.npy"}, "cannot be read"),
        ({"--carriers": "pickled.npy"}, "cannot be read"),
        ({"--carriers": "long.csv"}, "field larger than field limit"),
        ({"--carriers": "cut.npz"}, "cannot be read: Error -3 while decompressing"),
        ({"--carriers": "empty"}, "hold pictures"),
        ({"--carriers": "mark.bin"}, "is unknown: give .npy"),
        ({"--carriers": "columns.csv"}, "name the column of texts text"),
        ({"--labels": "broken.npy"}, "cannot be read"),
        ({"--labels": "columns.csv"}, "labels in"),
        ({"--classes": 5}, "labels run from 0 to 9"),
        ({"--scheme": "lego"}, "did you mean 'logo'?"),
        ({"--set": "sise=.2"}, "the keys of scheme 'random-label' are pictures, words"),
        ({"--set": "words=many"}, "give a value of type int"),
        ({"--set": "words=99999999999"}, "words=99999999999"),
        ({"--set": "words=-3"}, "words=-3"),
        ({"--set": "words"}, "give KEY=VALUE"),
        ({"--triggers": 0}, "at least one is needed"),
        ({"--register": "nowhere"}, "wmplug init"),
    ],
)
def test_create_says_what_does_not_fit(terminal, owner, pictures, tmp_path, changed, said):
    (tmp_path / "broken.npy").write_bytes(b"\x93NUMPY\x01\x00")
    np.save(tmp_path / "pickled.npy", np.array([{}, None], dtype=object), allow_pickle=True)
    (tmp_path / "long.csv").write_text("text,label\n" + "a" * 200_000 + ",1\n")
    np.savez_compressed(tmp_path / "cut.npz", x=np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8))
    damaged = bytearray((tmp_path / "cut.npz").read_bytes())
    damaged[200:5000] = bytes(4800)
    (tmp_path / "cut.npz").write_bytes(damaged)
    (tmp_path / "empty").mkdir()
    (tmp_path / "mark.bin").write_bytes(b"")
    (tmp_path / "columns.csv").write_text("a,b\n1,2\n")
    words = {"--scheme": "random-label", "--register": owner.path, "--out": "a.wm"}
    words |= dict(zip(pictures[::2], pictures[1::2], strict=True)) | changed
    assert said in terminal.error("create", *[word for pair in words.items() for word in pair])
    assert not (tmp_path / "a.wm").exists()


def test_show_draws_every_trigger_with_its_answer(terminal, file, mark, tmp_path):
    result = terminal("show", file)
    assert "secret" in result.stderr
    assert mark.public["root"] in result.stdout
    path = tmp_path / "mark.sheet.png"
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    drawn = np.asarray(Image.open(path).convert("RGB")).astype(int)
    inputs = np.asarray(mark.triggers.plan.inputs)
    # Every trigger's pixels stand somewhere on the sheet, as squares.
    side = sheet._SIDE // 8
    shown = {
        drawn[top : top + 8 * side : side, left : left + 8 * side : side, 0].tobytes()
        for top, left in _places(mark, drawn)
    }
    assert {inputs[i].astype(int).tobytes() for i in mark.triggers.plan.choices.rows} <= shown


def _places(mark, drawn):
    step = sheet._SIDE + sheet._GAP
    across = (drawn.shape[1] - sheet._GAP) // step
    for k in range(len(mark.triggers)):
        yield sheet._HEAD + k // across * (step + sheet._LABEL), sheet._GAP + k % across * step


def test_the_sheet_shows_other_answers_for_another_key(rival, mark, digits):
    images, labels = digits
    other = wmplug.create(rival, scheme="random-label", carriers=images[:300], labels=labels[:300], classes=10)
    assert sheet.draw(mark, ".png") == sheet.draw(mark, ".png") != sheet.draw(other, ".png")


def test_a_sheet_of_texts_is_a_table(terminal, owner, tmp_path):
    mark = wmplug.create(owner, scheme="random-label", carriers=SENTENCES, classes=7)
    mark.save(tmp_path / "t.wm")
    told = terminal.json("show", tmp_path / "t.wm")
    lines = (tmp_path / "t.sheet.txt").read_text().splitlines()[3:]
    assert told["sheet"] == str(tmp_path / "t.sheet.txt")
    assert [int(line.split()[0]) for line in lines] == [
        int(mark.triggers.answers[i]) for i in mark.triggers.plan.choices.rows
    ]
    assert [line[8:] for line in lines] == [mark.triggers.row(i) for i in mark.triggers.plan.choices.rows]
    assert "is a .txt file" in terminal.error("show", tmp_path / "t.wm", "--out", tmp_path / "t.png")


@pytest.mark.parametrize("shape", [(12, 8), (12, 8, 3), (3, 12, 8), (200, 150, 3), (12, 8, 4)])
@pytest.mark.parametrize("kind", ["uint8", "float"])
def test_pictures_of_every_kind_can_be_drawn(owner, shape, kind):
    rng = np.random.default_rng(0)
    carriers = rng.integers(0, 256, (20, *shape)).astype(np.uint8)
    carriers = carriers if kind == "uint8" else (carriers / 127.5 - 1).astype(np.float32)
    mark = wmplug.create(owner, scheme="random-label", carriers=carriers, classes=3, triggers=13, allow_weak=True)
    drawn = Image.open(io.BytesIO(sheet.draw(mark, ".png")))
    assert min(drawn.size) > 100
    assert max(drawn.size) < 2000
    assert len(drawn.getcolors(2**24)) > 50


def test_a_mark_that_asks_ordinary_inputs_has_no_sheet(terminal, owner, tilt, digits, tmp_path):
    images, labels = digits
    file = wmplug.create(owner, scheme=tilt, carriers=images, labels=labels, classes=10).save(tmp_path / "tilt.wm")
    assert "asks ordinary inputs and has no triggers" in terminal.error("show", file, "--out", tmp_path / "a.png")
    assert terminal.json("show", file, "--public")["scheme"] == "tilt"


@pytest.mark.filterwarnings("ignore:a filter that knows natural inputs alone tells")  # of few digits
def test_what_it_is_for_chooses_the_scheme(terminal, owner, pictures, tmp_path):
    out = tmp_path / "theft.wm"
    few = ["--triggers", 40]  # digits leave little doubt
    told = terminal.json("create", "--against", "theft", *few, *pictures, "--register", owner.path, "--out", out)
    assert told["scheme"] == "mixed"
    both = ["--against", "theft", "--scheme", "logo"]
    assert "give either a scheme or a purpose" in terminal.error(
        "create", *both, *pictures, "--register", owner.path, "--out", out
    )


def test_the_public_part_needs_no_passphrase(terminal, monkeypatch, file, mark, tmp_path):
    public = terminal.json("show", file, "--public")
    monkeypatch.delenv("WMPLUG_PASSPHRASE")
    assert terminal.json("show", file, "--public") == public
    result = terminal("show", file)
    assert "need the passphrase" in result.stderr
    assert not list(tmp_path.glob("*.png"))
    assert public == {**json.loads(json.dumps(mark.public)), "wmplug": 1, "sheet": None}
    assert "set WMPLUG_PASSPHRASE" in terminal.error("show", file, "--out", tmp_path / "s.png")


def test_nothing_secret_is_printed(terminal, monkeypatch, owner, pictures, file, mark, tmp_path):
    words = ["create", "--scheme", "random-label", *pictures, "--register", owner.path]
    terminal(*words, "--out", tmp_path / "a.wm")
    terminal("show", file)
    file.write_bytes(file.read_bytes()[:-7])
    assert "truncated or edited" in terminal.error("show", file)
    monkeypatch.setenv("WMPLUG_PASSPHRASE", "something entirely different")
    assert "wrong passphrase" in terminal.error("show", tmp_path / "a.wm")
    assert "wrong passphrase" in terminal.error(*words, "--out", tmp_path / "b.wm")
    secrets = [PASSPHRASE, "something entirely different", owner._roots[0].hex(), repr(owner._roots[0])]
    secrets += [mark.subkeys.key(p).hex() for p in ("input", "label", "schedule", "disclosure")]
    assert not [secret for secret in secrets if secret in terminal.printed]


def test_show_replaces_sheets_and_nothing_else(terminal, owner, file, mark, tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "precious.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "mark.png")
    (tmp_path / "folder.png").mkdir()
    before = (tmp_path / "precious.png").read_bytes(), (tmp_path / "mark.png").read_bytes()
    for taken in ("precious.png", "folder.png"):
        assert "is not a sheet of triggers" in terminal.error("show", file, "--out", tmp_path / taken)
    for _ in range(2):
        terminal("show", file)
        terminal("show", file, "--out", tmp_path / "new" / "s.png")
    assert ((tmp_path / "precious.png").read_bytes(), (tmp_path / "mark.png").read_bytes()) == before
    assert (tmp_path / "new" / "s.png").read_bytes() == (tmp_path / "mark.sheet.png").read_bytes()
    texts = wmplug.create(owner, scheme="random-label", carriers=SENTENCES, classes=7).save(tmp_path / "own.wm")
    (tmp_path / "own.txt").write_text("mine")
    for _ in range(2):
        terminal("show", texts)
    assert "is not a sheet of triggers" in terminal.error("show", texts, "--out", tmp_path / "own.txt")
    assert (tmp_path / "own.txt").read_text() == "mine"


def test_paths_that_cannot_be_are_one_line(terminal, owner, pictures, tmp_path):
    (tmp_path / "taken").write_text("")
    words = ["create", "--scheme", "random-label", *pictures, "--register", owner.path]
    assert str(tmp_path / "taken") in terminal.error(*words, "--out", tmp_path / "taken" / "z.wm")
    assert str(tmp_path / "taken") in terminal.error("init", "--name", "Ada", "--register", tmp_path / "taken")


def test_kind_of_another_file_is_named(terminal, owner):
    assert "of kind 'owner', not 'watermark'" in terminal.error("show", owner.path / "secret" / "owner.enc")


def test_help_names_every_exit_code(terminal):
    said = " ".join(terminal("--help").stdout.split())
    assert all(f"{code} " in said for code in (0, 1, 2, 70, 130))


def test_a_parameter_that_may_be_a_word(terminal):
    assert read_parameters("tilt", ["delta=auto", "directions=12"]) == {"delta": "auto", "directions": 12}
    with pytest.raises(InputError, match="give a value of type float"):
        read_parameters("tilt", ["delta=much"])


def test_texts_are_tilted_as_a_function_of_ones_own_reads_them(terminal, owner, tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    words = [f"word{i}" for i in range(60)]
    labels = np.arange(240) % 2
    rows = [" ".join(draw.choice(words[30 * label : 30 * label + 40 - 10 * label], 12)) for label in labels]
    (tmp_path / "texts.csv").write_text(
        "text,label\n" + "".join(f"{text},{label}\n" for text, label in zip(rows, labels, strict=True))
    )
    (tmp_path / "reading.py").write_text(
        "import numpy as np\n\n\ndef prepare(text, answer):\n"
        "    return np.array([1 + int(word[4:]) for word in text.split()]), answer\n"
    )
    monkeypatch.chdir(tmp_path)
    asked = ["create", "--scheme", "tilt", "--carriers", "texts.csv", "--classes", 2, "--register", owner.path]
    asked += [
        "--set",
        "directions=4",
        "--set",
        "blends=20",
        "--set",
        "delta=1.0",
        "--set",
        "pool=[]",
        "--allow-weak",
        "--out",
        "a.wm",
    ]
    assert "give preprocess=" in terminal(*asked, code=2).stderr
    terminal(*asked, "--preprocess", "reading:prepare")
    assert load(tmp_path / "a.wm").scheme.name == "tilt"
