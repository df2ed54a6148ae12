"""Commitments to the assets of a training: four of its own, and the artwork that its triggers use.

Each function returns a plain dict, which JSON holds: the body of an event of the register. The same asset gives the
same body. No framework is imported; its objects are recognised by what they offer.
"""

from wmplug.register.assets.architecture import architecture as architecture
from wmplug.register.assets.artwork import artwork as artwork
from wmplug.register.assets.dataset import dataset as dataset
from wmplug.register.assets.documents import class_name as class_name
from wmplug.register.assets.parameters import parameters as parameters
from wmplug.register.assets.system import compare_system as compare_system
from wmplug.register.assets.system import system as system
