"""wmplug: put a watermark into a model while your framework trains it, and prove later that a copy is a copy.

Everything is imported at first use: `import wmplug` costs no framework, no NumPy, no plugin.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wmplug.claim.monitor import Monitor as Monitor
    from wmplug.claim.verdict import Verdict as Verdict
    from wmplug.claim.verification import verify as verify
    from wmplug.errors import (
        InjectionError as InjectionError,
    )
    from wmplug.errors import (
        InputError as InputError,
    )
    from wmplug.errors import (
        KeyFileError as KeyFileError,
    )
    from wmplug.errors import (
        PluginError as PluginError,
    )
    from wmplug.errors import (
        SuspectError as SuspectError,
    )
    from wmplug.errors import (
        VerificationError as VerificationError,
    )
    from wmplug.errors import (
        WmplugError as WmplugError,
    )
    from wmplug.hookspecs import hookimpl as hookimpl
    from wmplug.keys.owner import Owner as Owner
    from wmplug.making import create as create
    from wmplug.making import load as load
    from wmplug.plugins import callback as callback
    from wmplug.watermark.file import read_public as read_public
    from wmplug.watermark.watermark import Watermark as Watermark

__version__ = "0.1.0"

_HOME = {
    "InjectionError": "errors",
    "InputError": "errors",
    "KeyFileError": "errors",
    "PluginError": "errors",
    "SuspectError": "errors",
    "VerificationError": "errors",
    "WmplugError": "errors",
    "hookimpl": "hookspecs",
    "Owner": "keys.owner",
    "callback": "plugins",
    "Verdict": "claim.verdict",
    "Monitor": "claim.monitor",
    "verify": "claim.verification",
    "Watermark": "watermark.watermark",
    "create": "making",
    "load": "making",
    "read_public": "watermark.file",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'wmplug' has no attribute {name!r}")
    return getattr(importlib.import_module(f"wmplug.{_HOME[name]}"), name)
