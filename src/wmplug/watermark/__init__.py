"""The watermark itself: plan, carriers, file; no use case."""
