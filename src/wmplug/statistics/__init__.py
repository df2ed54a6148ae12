"""Numbers only: exact tails, the e-process, signs, and their combination."""
