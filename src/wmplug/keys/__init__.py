"""What is secret, and how it is sealed, derived, and committed to."""
