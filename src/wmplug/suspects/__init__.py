"""What answers, and how it is found."""

from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.losses import scores_of_losses
from wmplug.suspects.protocols import Suspect

__all__ = ["CallableSuspect", "Suspect", "scores_of_losses"]
