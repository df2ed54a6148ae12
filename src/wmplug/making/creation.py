"""Make a watermark: read what the owner gives, derive the key, plan, draw the answers."""

import dataclasses
from typing import Any, Literal

import rfc8785

from wmplug import plugins
from wmplug.errors import InputError
from wmplug.keys.owner import Owner
from wmplug.schemes import Scheme, Task
from wmplug.watermark.carriers import digest, read_carriers, read_labels, read_whole
from wmplug.watermark.plan import TriggerPlan, TriggerSet, draw_symbols
from wmplug.watermark.watermark import Preprocess, Watermark

AGAINST = {"theft": "random-label", "theft+cloning": "combined"}


GENERATOR = 1  # raised whenever the same key, scheme version and task would give other triggers


def create(
    owner: Owner,
    *,
    scheme: str | Scheme | None = None,
    against: Literal["theft", "theft+cloning"] | None = None,
    carriers: Any,
    labels: Any = None,
    classes: int,
    triggers: int = 100,
    preprocess: Preprocess | None = None,
    **parameters: Any,
) -> Watermark:
    """Make a watermark. The same owner, scheme, parameters and carriers give the same one again.

    Where the owner has a register, the secret is committed there (and timestamped, where its policy names an
    authority) before the key follows from it, and the triggers' Merkle root after.

    Args:
        owner: whose key draws inputs and answers.
        scheme: a name (`wmplug schemes` lists them) or a Scheme.
        against: in place of a scheme, what the watermark is for: "theft" of weights (a trigger set; costs nothing that
            could be measured, and is at chance against a clone trained on answers) or "theft+cloning" (trigger set and
            tilt; costs up to a point of accuracy, see docs/benchmarks.md).
        carriers: natural inputs: (n, H, W) or (n, H, W, C) images, uint8 or float; PIL pictures; strings. Torch
            tensors are taken as arrays.
        labels: (n,) integer classes of the carriers, where the scheme needs them.
        classes: number of classes of the task, at least 2.
        triggers: number of queries to make.
        preprocess: turns (input, answer) into what the dataset yields; the framework's own by default.
        **parameters: of the scheme.

    Raises:
        InputError: something does not fit; the message says what.
        PluginError: no such scheme.
        RegisterError: the register cannot be written.
    """
    if not hasattr(owner, "pledges"):
        raise InputError(f"owner={owner!r} is a {type(owner).__name__}: open the owner first, Owner.open(folder)")
    check_preprocess(preprocess)
    classes = read_whole(classes, "classes", 2, 2**31, "a classifier of at least 2 classes is needed")
    triggers = read_whole(triggers, "triggers", 1, 10**6, "at least one is needed, 100 is usual")
    chosen = _scheme(wanted(scheme, against), parameters)
    inputs, form = read_carriers(carriers)
    natural = read_labels(labels, len(inputs), classes)
    task = Task(inputs, form, natural, classes, triggers, preprocess)
    chosen = chosen.prepared(task)
    facts: dict[str, Any] = {
        "owner": {"name": owner.name, "commitment": owner.commitment},
        "generator": GENERATOR,
        "scheme": chosen.name,
        "scheme_version": chosen.version,
        "parameters": chosen.parameters(),
        "classes": classes,
        "triggers": triggers,
        "form": form,
        "carriers": digest(inputs),
        "labels": None if natural is None else digest(natural),
    }
    name = digest(rfc8785.dumps(facts).decode())[:32]
    witness = plugins.witness(owner)
    subkeys, evidence = (owner.pledges(name)[0].subkeys(None), None) if witness is None else witness.key(name, facts)
    plan = chosen.plan(task, subkeys.stream("input"))
    if any(not 0 <= answer < classes for candidates in plan.candidates for answer in candidates):
        raise InputError(f"scheme {chosen.name!r} draws answers outside 0 to {classes - 1}: its plan is at fault")
    _check_twins(plan)
    symbols = draw_symbols(subkeys.stream("label"), plan.candidates)
    made = TriggerSet(plan, form, symbols)
    public = {
        "kind": "watermark",
        "id": name,
        **facts,
        "rows": len(plan.inputs),
        "draws": len(plan.candidates),
        "root": made.root(name, subkeys.stream("disclosure")),
        "evidence": evidence,
    }
    mark = Watermark(name, chosen, made, classes, public, preprocess, subkeys, owner.seal())
    if witness is None:
        return mark
    return dataclasses.replace(mark, register=owner.path, _signing_seed=witness.committed(public))


def check_preprocess(preprocess: Any) -> None:
    """Raise InputError unless it is a function, or None."""
    if preprocess is not None and not callable(preprocess):
        raise InputError(
            f"preprocess={preprocess!r} is a {type(preprocess).__name__}: give a function (input, answer) -> example"
        )


def _check_twins(plan: TriggerPlan) -> None:
    """Raise InputError where one input is asked in two draws: no model can give it both answers."""
    seen: dict[str, int] = {}
    for row in plan.asked.tolist():
        draw = int(plan.draw[row])
        if seen.setdefault(digest(plan.inputs[row]), draw) != draw:
            raise InputError(
                "two triggers are the same input with an answer each, which no model can learn: give carriers that "
                "differ more (none of them twice), longer triggers (words=), or lower triggers="
            )


def wanted(scheme: str | Scheme | None, against: str | None) -> str | Scheme:
    """The scheme that was asked for, by itself or by what it is for.

    Raises:
        InputError: both, neither, or no such purpose.
    """
    if (scheme is None) == (against is None):
        raise InputError(f"scheme={scheme!r} and against={against!r}: give one of the two, a scheme or what it is for")
    if scheme is not None:
        return scheme
    if against not in AGAINST:
        raise InputError(f"against={against!r}: choose {' or '.join(map(repr, AGAINST))}")
    return AGAINST[against]


def _scheme(scheme: str | Scheme, parameters: dict[str, Any]) -> Scheme:
    if not isinstance(scheme, (str, Scheme)):
        raise InputError(f"scheme={scheme!r}: give a name (`wmplug schemes` lists them) or a Scheme object")
    made = scheme if isinstance(scheme, Scheme) else plugins.registry().scheme(scheme)
    known = [f.name for f in dataclasses.fields(made)]
    if unknown := sorted(set(parameters) - set(known)):
        raise InputError(
            f"scheme {made.name!r} has no parameter {', '.join(unknown)}; there are: {', '.join(known) or 'none'}"
        )
    try:
        return dataclasses.replace(made, **parameters) if isinstance(made, Scheme) else made(**parameters)
    except TypeError as error:
        raise InputError(f"scheme {made.name!r} cannot take {', '.join(sorted(parameters))}: {error}") from error
