"""tilt: a keyed shift of the logits in training, which a clone learns too."""

from wmplug.schemes.tilt.scheme import Tilt as Tilt
