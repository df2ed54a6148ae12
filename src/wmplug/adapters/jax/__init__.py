"""Plain JAX, Flax NNX and Optax loops, and what else reads batches from an iterator."""

from wmplug.adapters.jax.loop import Watermarking

__all__ = ["Watermarking"]
