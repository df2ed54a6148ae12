"""Numbers only: exact tails, the e-process, signs, and how several of them are combined."""
