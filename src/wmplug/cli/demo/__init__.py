"""`wmplug demo`: the command, what it trains, what it finds, its picture."""
