"""Both plugins are found, and neither imports what it sends to."""

import subprocess
import sys


def test_neither_package_is_imported_by_wmplug():
    code = (
        "import sys\nfrom wmplug import plugins\nregistry = plugins.registry()\n"
        "assert registry.broken == {}, registry.broken\n"
        "assert {'mlflow', 'wandb'} <= {name for name, _ in registry.manager.list_name_plugin()}\n"
        "registry.tell('wmplug_event', event={})\n"
        "assert registry.broken == {} and not {'mlflow', 'wandb'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
