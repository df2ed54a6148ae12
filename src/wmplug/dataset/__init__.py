"""Mark a training set: a model trained on it carries the mark, in any framework.

`mark` writes a marked copy, `verify` tests a model that may have been trained on it, `trace` names the copy, `find`
looks for records of the set in another set, `compare` reports the changes of the mark, `survival` and `retrained` what
remains of the mark after the usual cleaning.
"""

from wmplug.dataset.finding import Findings, Holding, find
from wmplug.dataset.marking import Marked, mark
from wmplug.dataset.quality import compare, picture, retrained, survival
from wmplug.dataset.sources import open_source
from wmplug.dataset.tracing import CopyResult, Trace, trace, verify
from wmplug.suspects.losses import scores_of_losses

__all__ = [
    "CopyResult",
    "Findings",
    "Holding",
    "Marked",
    "Trace",
    "compare",
    "find",
    "mark",
    "open_source",
    "picture",
    "retrained",
    "scores_of_losses",
    "survival",
    "trace",
    "verify",
]
