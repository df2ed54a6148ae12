"""Whether a watermark can prove anything: what a model that gives every secret answer reaches."""

import math

from wmplug.claim.terms import TARGET_E
from wmplug.errors import InputError
from wmplug.statistics import betting
from wmplug.watermark.plan import Plan

_MOST = 10**4  # draws; of two answers each, 24 suffice


def check_reach(plan: Plan, triggers: int, keys: int = 1) -> None:
    """Refuse a plan with which even a perfect copy stays below the target of a verdict.

    Args:
        plan: the plan.
        triggers: the number of triggers that its owner asked for.
        keys: number of keys that each verdict will count as tried, this one included.

    Raises:
        InputError: the copy stays below; the message names the number that suffices.
    """
    target = math.log10(TARGET_E * keys)
    signs = 0 if plan.pattern is None else plan.pattern.signs
    if signs >= math.log2(TARGET_E * keys):  # no e-value exceeds one over the chance of the best outcome (Markov)
        return
    groups = [] if plan.choices is None else plan.choices.groups
    ahead = [(len(plan.options[plan.draw[group[0]]]), 1) for group in groups]
    if ahead and betting.fewest_to([[]], target, ahead) is not None:
        return
    if not ahead:
        raise InputError(
            f"{signs} signs cannot prove anything, however well a model carries them: at least "
            f"{math.ceil(math.log2(TARGET_E * keys))} are needed; give more directions=, or allow_weak=True"
        )
    few = min(candidates for candidates, _ in ahead)
    needed = betting.fewest_to([[]], target, [(few, 1)] * _MOST) or _MOST
    # Several triggers of one draw prove no more than one: more of them do not help, more draws do.
    advice = f"triggers={needed} or more" if len(ahead) >= triggers else f"{needed} draws (more variants, or phrases)"
    tried = f", discounted by {keys} keys" if keys > 1 else ""
    raise InputError(
        f"{len(ahead)} draws of {few} answers each cannot prove anything, even if a model gives every secret one: the "
        f"e-value stays below {TARGET_E:,.0f}{tried}; give {advice}, or allow_weak=True"
    )
