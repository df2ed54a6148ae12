"""An example plugin of wmplug: a scheme for tables, a task for texts, and skorch."""
