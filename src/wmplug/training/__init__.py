"""One training run: which triggers go where, and what is recorded; no framework."""
