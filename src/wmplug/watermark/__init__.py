"""The watermark itself: plan, carriers and file, without any use case."""
