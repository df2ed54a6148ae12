"""Makes the fixtures of a release, once: `cd tests; python -m vectors.frozen.make FOLDER [PART ...]` at that release.

A later wmplug has to open what an earlier one wrote: tests/test_frozen.py and tests/dataset/test_frozen_dataset.py do,
for every folder here. FOLDER is best a new one below /tmp, whose FOLDER/VERSION is then copied here.
"""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path

from vectors.frozen import acts, cases, facts, notarial

import wmplug
from wmplug.register import Register
from wmplug.training.record import Run

PASSPHRASE = cases.PASSPHRASE


def owner_in(folder):
    return wmplug.Owner.create(folder / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)


def write(folder, found):
    (folder / "facts.json").write_text(spread(facts.plain(found)) + "\n")


def spread(value, depth=1):
    """JSON with a line for every name, and none for the parts of a list."""
    if not isinstance(value, dict) or not value:
        return json.dumps(value)
    lines = [f"{' ' * depth}{json.dumps(name)}: {spread(value[name], depth + 1)}" for name in value]
    return "{\n" + ",\n".join(lines) + "\n" + " " * (depth - 1) + "}"


def first(folder):
    """One mark, and a register in which a run began."""
    owner = owner_in(folder)
    mark = wmplug.create(owner, scheme="random-label", carriers=cases.squares(), classes=10, triggers=12)
    mark.save(folder / "mark.wm")
    Run(mark, "plain").start(data=cases.squares(), arguments={"lr": 0.1}, model=object())
    print(Register(owner.path).head)


def marks(folder):
    """Every scheme for training, every form; what suspects get for answers; where triggers go."""
    found = marks_of(cases.marks(), folder)
    asked = facts.facts(acts.with_queries(wmplug.load(folder / "tilt-grey.wm", passphrase=PASSPHRASE)))
    write(folder, {"marks": found, "queries": asked, "tables": facts.tables(), "numbers": facts.numbers()})


def later(folder):
    """Every scheme that came after those."""
    write(folder, {"marks": marks_of(cases.later(), folder)})


def marks_of(made, folder):
    owner, found = owner_in(folder), {}
    for name, case in made.items():
        path = wmplug.create(owner, allow_weak=True, **case.options).save(folder / f"{name}.wm")
        mark = wmplug.load(path, passphrase=PASSPHRASE)
        found[name] = {
            "facts": facts.facts(mark),
            "contents": facts.sealed(path, PASSPHRASE),
            **(
                {"verdicts": acts.verdicts(dataclasses.replace(mark, register=None, record=None))}
                if name in cases.JUDGED
                else {}
            ),
        }
    return found


def dataset(folder):
    """Every scheme for data sets, every form; and tables that were marked, with what lies beside them."""
    owner, found = owner_in(folder), {}
    for name, case in cases.dataset_marks().items():
        path = wmplug.create(owner, allow_weak=True, **case.options).save(folder / f"{name}.wm")
        mark = wmplug.load(path, passphrase=PASSPHRASE)
        found[name] = {
            "facts": facts.facts(mark),
            "contents": facts.sealed(path, PASSPHRASE),
            **({"verdicts": acts.verdicts(mark)} if name in cases.JUDGED else {}),
            "changes": facts.changes(mark, case.options["carriers"], case.options["labels"]),
        }
    acts.write_tables(folder)
    acts.mark_tables(owner, folder, folder)
    tables = {
        str(path.relative_to(folder)): facts.facts(wmplug.load(path, passphrase=PASSPHRASE))
        for path in sorted(folder.rglob("*.csv.wm"))
    }
    write(folder, {"marks": found, "tables": tables, "trace": acts.traced(folder)})


def run(folder):
    """A register with all of a training run on record."""
    owner = owner_in(folder)
    mark = wmplug.create(owner, scheme="random-label", carriers=cases.squares(), classes=10, triggers=12)
    mark.save(folder / "mark.wm")
    looks = acts.trained(mark)
    write(folder, {"looks": looks, "entries": facts.entries(owner.path)})


def notary(folder):
    """A claim that a notary heard, and leaves that were shown to everybody."""
    owner = owner_in(folder)
    mark = wmplug.create(owner, carriers=cases.squares(), **cases.CLAIM)
    mark.save(folder / "mark.wm")
    notarial.begun(mark)
    heard = notarial.hear(owner, mark, folder)
    write(folder, {"result": heard, "drawn": notarial.drawn_rows(mark), "shown": notarial.shown(owner, mark, folder)})


PARTS = {"first": first, "marks": marks, "later": later, "run": run, "notary": notary, "dataset": dataset}


def main():
    folder = Path(sys.argv[1]) / wmplug.__version__
    for name in sys.argv[2:] or PARTS:
        place = folder if name == "first" else folder / name
        place.mkdir(parents=True, exist_ok=True)
        PARTS[name](place)
        kept = [file for file in sorted(place.rglob("*")) if file.is_file()]
        print(name, hashlib.sha256(b"".join(file.read_bytes() for file in kept)).hexdigest()[:16], len(kept), "files")


if __name__ == "__main__":
    main()
