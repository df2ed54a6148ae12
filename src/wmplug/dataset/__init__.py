"""Marking a training set: whoever trains on it is marked, in whatever framework.

`mark` writes a marked copy, `verify` tests a model that may have been trained on it, `trace` says whose copy it was,
`find` looks for records of the set in another set, `compare` says what the mark did to it, `survival` and `retrained`
what the usual cleaning leaves of the mark.
"""

from wmplug.dataset.finding import find as find
from wmplug.dataset.marking import Marked as Marked
from wmplug.dataset.marking import mark as mark
from wmplug.dataset.quality import compare as compare
from wmplug.dataset.quality import picture as picture
from wmplug.dataset.quality import retrained as retrained
from wmplug.dataset.quality import survival as survival
from wmplug.dataset.sources import open_source as open_source
from wmplug.dataset.tracing import Trace as Trace
from wmplug.dataset.tracing import trace as trace
from wmplug.dataset.tracing import verify as verify
from wmplug.suspects.losses import scores_of_losses as scores_of_losses
