"""An example plugin of wmplug: a scheme for tables, and skorch."""
