"""What an answer can be; one file a task."""
