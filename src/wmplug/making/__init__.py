"""Use cases of an owner: make a watermark, open a saved one."""

from wmplug.making.creation import create as create
from wmplug.making.loading import load as load
