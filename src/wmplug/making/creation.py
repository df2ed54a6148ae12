"""Make a watermark: read the owner's inputs, derive the key, plan, draw the answers."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any, Literal, cast

import numpy as np
import rfc8785

from wmplug import plugins
from wmplug.errors import EvidenceWarning, InputError
from wmplug.keys.owner import Owner
from wmplug.keys.streams import KeyStream
from wmplug.making import oddness
from wmplug.making.reach import check_reach
from wmplug.register import prepared
from wmplug.register.history import History
from wmplug.register.witness import Witness
from wmplug.statistics.arrays import read_whole
from wmplug.tasks import public as tasks
from wmplug.tasks.base import Task
from wmplug.tasks.classes import Classes, are_names
from wmplug.watermark.brief import Brief
from wmplug.watermark.carriers import Inputs, digest, read_carriers
from wmplug.watermark.columns import class_names, columns
from wmplug.watermark.plan import GENERATOR, Plan, TriggerSet, draw_symbols
from wmplug.watermark.scheme import Prepares, Scheme
from wmplug.watermark.sizes import Size
from wmplug.watermark.watermark import Preprocess, Watermark

AGAINST = {"theft": "mixed", "theft+cloning": "combined", "theft+answers": "combined-served"}


def create(
    owner: Owner,
    *,
    scheme: str | Scheme | None = None,
    against: Literal["theft", "theft+cloning", "theft+answers"] | None = None,
    carriers: Any,
    labels: Any = None,
    classes: int | Sequence[str] | None = None,
    task: Task | None = None,
    triggers: int | None = None,
    image_size: Any = None,
    preprocess: Preprocess | None = None,
    allow_weak: bool = False,
    **parameters: Any,
) -> Watermark:
    """Make a watermark. The same owner, scheme, parameters and carriers give the same one again.

    If the owner has a register, wmplug commits to the secret there (and has it timestamped, if the policy names an
    authority) before it derives the key, and commits to the triggers' Merkle root afterwards.

    Args:
        owner: the owner whose key draws inputs and answers.
        scheme: a name (`wmplug schemes` lists them) or a Scheme.
        against: purpose, in place of a scheme: "theft" of weights (a trigger set that no filter hides whole; it needs
            labels, and carriers held out of training; without a measurable cost, and at chance against a clone trained
            on answers), "theft+cloning" (trigger set and tilt; costs up to a point of
            accuracy, see docs/benchmarks.md) or "theft+answers" (trigger set, and answers that `wmplug.serving` marks:
            the strongest against clones, of a model that you serve yourself).
        carriers: natural inputs: (n, H, W) or (n, H, W, C) images, uint8 or float; PIL pictures; strings. Torch
            tensors count as arrays. A data frame, a `datasets.Dataset` or a torch data set of pairs gives the column of
            inputs, and that of labels, if no other could be meant.
        labels: (n,) natural answers of the carriers, where the scheme needs them; integers, names of classes, or (n,
            classes) one-hot rows.
        classes: number of classes, at least 2, or their names in the order of the model's; short for
            task=Classes(...). By default the names that the data states (a ClassLabel, categories, `classes` of a torch
            data set), which classes= must not contradict; else those in labels=, in alphabetical order.
        task: the answer space, in place of classes=.
        triggers: number of queries to make; by default what is usual for the scheme, 100 for most.
        image_size: brings PIL pictures of mixed sizes and modes to one: pixels, (height, width), or an image processor
            of transformers. They are scaled to cover it and cut around the middle; the public line states it.
        preprocess: turns (input, answer) into an example as the dataset yields it; the framework's own by default.
            The register commits to what it gives a model, before the answers are drawn; use the same to verify.
        allow_weak: make the watermark even if a model that gives every secret answer could not be proven.
        **parameters: parameters of the scheme.

    Raises:
        InputError: an argument does not fit, or the triggers are too few to prove anything; the message names it.
        PluginError: no scheme has this name, or it cannot be loaded.
        RegisterError: the register cannot be written.
    """
    if not hasattr(owner, "pledges"):
        raise InputError(f"owner={owner!r} is a {type(owner).__name__}: open the owner first, Owner.open(folder)")
    check_preprocess(preprocess)
    names = class_names(carriers, labels)
    carriers, labels = columns(carriers, labels)
    task = _task(classes, task, labels, names)
    one_size = None if image_size is None else Size.of(image_size, carriers)
    chosen = _scheme(wanted(scheme, against), parameters)
    triggers = chosen.usual if triggers is None else triggers
    triggers = read_whole(triggers, "triggers", 1, 10**6, f"at least one is needed, {chosen.usual} is usual")
    inputs, form = read_carriers(carriers if one_size is None else one_size.apply(carriers))
    brief = Brief(inputs, form, task, task.labels(labels, len(inputs)), triggers, preprocess)
    chosen = chosen.prepared(brief) if isinstance(chosen, Prepares) else chosen
    facts = _facts(owner, chosen, brief, one_size)
    name = digest(rfc8785.dumps(facts).decode())[:32]
    witness, planned = Witness.of(owner), functools.partial(_plan, chosen, brief)
    pledge = owner.pledges(name)[0] if witness is None else witness.pledge(name)
    early = pledge.subkeys(None)
    # A plan that fails, fails here: a secret that is committed to counts as a try in every later claim.
    plan, subkeys, evidence = planned(early.stream("input")), early, None
    if chosen.natural:
        _warn_of_filters(plan, inputs)
    if not allow_weak:
        check_reach(plan, triggers, 1 if witness is None else witness.keys(name))
    if witness is not None:
        evidence = witness.evidence(name, pledge, functools.partial(_prepared, brief, plan))
        subkeys = pledge.subkeys_of(evidence)
        plan = plan if subkeys.key("input") == early.key("input") else planned(subkeys.stream("input"))
    trigger_set = TriggerSet(plan, form, task, draw_symbols(subkeys.stream("label"), plan.options))
    public = {
        "kind": "watermark",
        "id": name,
        **facts,
        "rows": len(plan.inputs),
        "draws": len(plan.options),
        "root": trigger_set.root(name, subkeys.stream("disclosure")),
        "evidence": evidence,
    }
    mark = Watermark(name, chosen, trigger_set, public, preprocess, subkeys, owner.seal())
    if witness is None:
        return mark
    seed = witness.committed(public)
    return dataclasses.replace(mark, register=owner.path, _signing_seed=seed, record=History(owner.path))


def _plan(scheme: Scheme, brief: Brief, stream: KeyStream) -> Plan:
    """The scheme's plan, checked."""
    plan = scheme.plan(brief, stream)
    if not isinstance(plan, Plan):
        raise InputError(f"scheme {scheme.name!r} returned a {type(plan).__name__} from plan: return a Plan")
    _check_options(plan, brief.task, scheme.name)
    _check_twins(plan)
    return plan


def _warn_of_filters(plan: Plan, carriers: Inputs) -> None:
    """Warn if a filter tells the triggers that are natural inputs from others."""
    found = oddness.told_apart(plan, carriers, natural=True)
    if max(found.values(), default=0.0) > oddness.TELLS:
        warnings.warn(
            f"a filter that knows natural inputs alone tells these triggers from others (AUC {oddness.listed(found)}), "
            "and a thief may put one before a stolen model: give more carriers, or lower triggers=, so that the choice "
            "among ambiguous inputs is wider",
            EvidenceWarning,
            stacklevel=3,
        )


def _prepared(brief: Brief, plan: Plan) -> str | None:
    """The root over what preprocess= gives a model for each input; None without such a function, or if it varies."""
    if brief.preprocess is None:
        return None
    triggers = TriggerSet(plan, brief.form, brief.task, np.zeros(0, np.int64))
    try:
        return prepared.root(brief.preprocess, triggers, len(plan.inputs))
    except Exception as error:
        warnings.warn(
            f"preprocess= cannot be committed to, {_why(error)}: verdicts name it NOT COMMITTED. Let it give the "
            "same example for an input each time, whatever answer comes with it",
            EvidenceWarning,
            stacklevel=5,
        )
        return None


def _why(error: Exception) -> str:
    return str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"


def _facts(owner: Owner, scheme: Scheme, brief: Brief, size: Size | None) -> dict[str, Any]:
    """The public facts that the watermark's id is the digest of."""
    return {
        "owner": {"name": owner.name, "commitment": owner.commitment},
        "generator": GENERATOR,
        "scheme": scheme.name,
        "scheme_version": scheme.version,
        "parameters": scheme.parameters(),
        **tasks.written(brief.task),
        "triggers": brief.triggers,
        "form": brief.form,
        **brief.digests(),
        **({} if size is None else {"pictures": size.facts()}),
    }


def check_preprocess(preprocess: Any) -> None:
    """Raise InputError unless it is a function, or None."""
    if preprocess is not None and not callable(preprocess):
        raise InputError(
            f"preprocess={preprocess!r} is a {type(preprocess).__name__}: give a function (input, answer) -> example"
        )


def _task(classes: Any, task: Task | None, labels: Any, names: tuple[str, ...]) -> Task:
    if task is None and names:
        return _as_stated(classes, labels, names)
    if task is None and are_names(labels) and not are_names(classes):
        return Classes.named(labels, classes)
    if (classes is None) == (task is None):
        raise InputError(f"classes={classes!r} and task={task!r}: give either a number of classes or a task")
    if classes is not None:
        return Classes(len(classes), tuple(classes)) if are_names(classes) else Classes(classes)
    if isinstance(task, type) or not hasattr(task, "belongs"):
        raise InputError(f"task={task!r} is a {type(task).__name__}: give an instance of a Task, such as Classes(10)")
    return cast(Task, task)


def _as_stated(classes: Any, labels: Any, names: tuple[str, ...]) -> Classes:
    """The task whose classes the labels' own container names."""
    if classes is None or (are_names(classes) and tuple(classes) == names):
        return Classes(len(names), names)
    if isinstance(classes, (int, np.integer)) and classes == len(names):
        return Classes(len(names), names if are_names(labels) else ())
    raise InputError(
        f"the data names {len(names)} classes ({', '.join(names[:8])}{', ...' * (len(names) > 8)}), and "
        f"classes={classes!r}: leave classes= out, or give the inputs and the numbers of their classes as plain lists, "
        "carriers=[...], labels=[...]"
    )


def _check_options(plan: Plan, task: Task, scheme: str) -> None:
    """Raise InputError if a draw of choices has an option outside the task, or a row of a pattern such a target."""
    options = set() if plan.choices is None else set(plan.choices.options)
    options |= set() if plan.pattern is None else set(plan.pattern.targets)
    if wrong := [option for draw in options for option in draw if not task.belongs(option)]:
        raise InputError(
            f"scheme {scheme!r} draws answers outside {task}, such as {wrong[0]!r}: report it to the scheme's author"
        )


def _check_twins(plan: Plan) -> None:
    """Raise InputError if two draws ask the same input: no model can give it both answers."""
    seen: dict[str, int] = {}
    for row in plan.secret.tolist():
        draw = int(plan.draw[row]) if plan.choices is not None else row  # a row with targets has a sign of its own
        if seen.setdefault(digest(plan.inputs[row]), draw) != draw:
            raise InputError(
                "two triggers are the same input with an answer each, which no model can learn: give carriers that "
                "differ more (none of them twice), longer triggers (words=), or lower triggers="
            )


def wanted(scheme: str | Scheme | None, against: str | None) -> str | Scheme:
    """The scheme, given as such or by its purpose.

    Raises:
        InputError: both are given, or neither, or the purpose is unknown.
    """
    if (scheme is None) == (against is None):
        raise InputError(f"scheme={scheme!r} and against={against!r}: give either a scheme or a purpose")
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
