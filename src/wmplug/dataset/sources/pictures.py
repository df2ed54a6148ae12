"""The earlier name of `wmplug.dataset.sources.encoded`."""

from wmplug.dataset.sources.encoded import read_picture, write_like

__all__ = ["read_picture", "write_like"]
