"""rows: triggers that are rows of a table."""

from wmplug.schemes.rows.scheme import Rows

__all__ = ["Rows"]
