"""`wmplug demo`: the command, its models, its findings, its picture."""
