"""Plain torch training loops."""

from wmplug.adapters.torch.loop import Watermarking as Watermarking
from wmplug.adapters.torch.loop import inject as inject
from wmplug.adapters.torch.modules import suspect as suspect
