"""What is done with a frozen watermark, by whoever makes the fixtures and by whoever compares them."""

from vectors.frozen import cases, facts

import wmplug
from wmplug.training.record import Run

# Of the events of a run, what differs from run to run and from machine to machine.
PASSING = ("run", "versions", "git")


def suspect(mark, scores=False):
    """Who knows some of the answers."""
    return cases.suspect(facts.inputs_of(mark), facts.answers_of(mark), mark.classes, scores)


def verdicts(mark):
    """Verdicts on that suspect, as JSON has them."""
    half = [row for group in facts.facts(mark)["groups"][::2] for row in group]
    asking = {
        "exhaustive": {"exhaustive": True},
        "scores": {"exhaustive": True, "scores": True},
        "sequential": {"target_e": 20, "batch_size": 3},
        "sequential scores": {"scores": True},
        "few": {"max_queries": 5, "keys": 3},
        **({"half": {"exhaustive": True, "rows": half}} if half else {}),
    }
    return {name: verdict(mark, **options) for name, options in asking.items()}


def verdict(mark, scores=False, **options):
    return wmplug.verify(mark, suspect(mark, scores), **options).to_json()


def with_queries(mark):
    """The mark `tilt-grey`, asking other inputs."""
    given = cases.marks()["tilt-grey"].options
    return mark.with_queries(
        cases.drawn("log", 30, 8, 8), carriers=given["carriers"], labels=given["labels"], pool=cases.pool(70)
    )


def trained(mark):
    """Record a run; the verdicts of three looks, and what the monitor makes of them."""
    run, monitor = Run(mark, "plain"), wmplug.Monitor(mark)
    run.start(
        data=(cases.squares(), cases.labels(60, 10)),
        arguments={"lr": 0.1, "epochs": 3, "token": "hf_secret"},
        model=cases.model(),
    )
    told = []
    for step, what in ((10, "some"), (20, "all"), (30, "none")):
        run.inserted(step - 3, step=step, epoch=step / 10)
        told.append(monitor.look(knowing(mark, what), step=step))
        if step < 30:
            run.checkpoint(told[-1], step=step, epoch=step / 10, system=cases.weights())
    run.finish(told[-1], step=31, epoch=3.0, system=cases.weights(), total=29)
    return {"verdicts": [one.to_json() for one in told], "lost": monitor.lost, "sum": monitor.log10_sum()}


def knowing(mark, what):
    """A suspect that knows some of the answers, all, or none."""
    inputs, answers = facts.inputs_of(mark), facts.answers_of(mark)
    if what == "some":
        return suspect(mark)
    known = {cases.key_of(x): y for x, y in zip(inputs, answers, strict=True)} if what == "all" else {}

    def frozen(batch):
        return [known.get(cases.key_of(x), 0) for x in batch]

    frozen.__qualname__ = "frozen"
    return frozen


def without_passing(entries):
    """Entries without what differs from run to run."""
    return [[e["type"], {name: e["body"][name] for name in e["body"] if name not in PASSING}] for e in entries]


def mark_tables(owner, folder, out, names=tuple(cases.TABLES)):
    """Mark small tables; the files that were written are what is compared."""
    from wmplug import dataset

    for name in names:
        data, options = cases.TABLES[name]
        dataset.mark(folder / data, owner, out=out / name, **options)


def write_tables(folder):
    (folder / "topics.csv").write_text(cases.csv_texts())
    (folder / "numbers.csv").write_text(cases.csv_numbers())


def traced(folder):
    """Whose copy a suspect was trained on that knows most of Bob's."""
    from wmplug import dataset

    marks = {
        name: wmplug.load(folder / f"copies/{name}.csv.wm", passphrase=cases.PASSPHRASE) for name in ("Ada", "Bob")
    }
    return dataset.trace(marks, suspect(marks["Bob"])).to_json()
