"""What answers, and how it is found."""
