"""Plain torch training loops, and the parts of an adapter for any framework that uses a torch DataLoader."""

from wmplug.adapters.torch.batches import TriggerCollate, prepared
from wmplug.adapters.torch.board import Board
from wmplug.adapters.torch.guard import Guard
from wmplug.adapters.torch.injection import inject
from wmplug.adapters.torch.loop import Watermarking
from wmplug.adapters.torch.modules import ModuleSuspect

__all__ = ["Board", "Guard", "ModuleSuspect", "TriggerCollate", "Watermarking", "inject", "prepared"]
