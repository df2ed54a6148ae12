"""Suspects, and how wmplug finds them."""

from wmplug.suspects.functions import CallableSuspect
from wmplug.suspects.losses import scores_of_losses
from wmplug.suspects.protocols import Suspect

__all__ = ["CallableSuspect", "Suspect", "scores_of_losses"]
