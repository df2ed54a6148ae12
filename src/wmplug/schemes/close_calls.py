"""close-calls: natural inputs that could be answered either way, each with the answer that the key's coin decides.

The triggers are carriers, unchanged: inputs held out of training, those that unmarked references find most ambiguous.
So a filter before a stolen model has nothing odd to find, and the unmarked members of an ensemble have no firm opinion
to outvote the stolen one. A coin proves less than a draw over all classes, and a model learns these answers more slowly
than random-label's. The carriers must not be in the training set, which would teach each trigger two answers.
"""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from wmplug.errors import InputError
from wmplug.keys.streams import KeyStream
from wmplug.schemes import Brief, Lessons, Plan, Scheme, ambiguity
from wmplug.schemes.tilt.references import References
from wmplug.watermark.carriers import take

_CLOSE = 0.5  # difference of the two best scores of the references, below which a carrier is a close call


@dataclass(frozen=True)
class CloseCalls(Scheme):
    """Keyed answers to ambiguous natural inputs.

    Attributes:
        isolated: take, of all that are close calls, those that resemble no other carrier. They are learnt by heart and
            survive fine-tuning longer; a filter that looks for isolated inputs finds more of them.
        pool: (n, classes) probabilities of the carriers from unmarked references; None trains some (extra `clones`).
    """

    name: ClassVar[str] = "close-calls"
    version: ClassVar[int] = 2
    usual: ClassVar[int] = 200
    natural: ClassVar[bool] = True

    isolated: bool = False
    pool: Any = field(default=None, repr=False)

    def prepared(self, brief: Brief) -> "CloseCalls":
        """This scheme with the references' probabilities for the carriers.

        Raises:
            InputError: labels are missing, or the pool does not fit the carriers.
        """
        return replace(self, pool=ambiguity.pool_of(self.pool, brief, self.name))

    def plan(self, brief: Brief, stream: KeyStream) -> Plan:
        """One draw a trigger, between the two likeliest classes of a carrier.

        Raises:
            InputError: labels are missing, or fewer carriers than triggers are close calls.
        """
        labels, pool = brief.need_labels(self.name), References(self.pool, self.pool)
        rows = ambiguity.in_doubt(pool, labels, brief.carriers)
        close = rows[pool.gap[rows] < _CLOSE]
        if len(close) < brief.triggers:
            raise InputError(
                f"{len(close)} of {len(brief.carriers)} carriers are close calls, {brief.triggers} triggers need as "
                "many: inputs that occur once, whose label is one of the two classes that references find likeliest, "
                f"less than {_CLOSE} apart. Give more inputs held out of training, lower triggers=, or choose "
                "random-label, which needs no ambiguous inputs"
            )
        few = brief.triggers
        chosen = ambiguity.most_isolated(brief.carriers, close, few) if self.isolated else close[:few]
        choices = ambiguity.coins(pool, chosen)
        return Plan(take(brief.carriers, chosen), Lessons(choices.rows, choices.draw), (choices,))
