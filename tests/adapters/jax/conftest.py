import jax
import numpy as np
import pytest

import wmplug
from wmplug.testing.schemes import fixed_owner

jax.config.update("jax_num_cpu_devices", 2)  # for batches that lie on several


def example(image, answer):
    return (image / np.float32(255)).astype(np.float32), answer


@pytest.fixture(scope="session")
def marks(digits):
    """The owner's mark and a rival's, for pictures (8, 8) in 0 to 1; keys that are drawn anew would fail by chance."""
    images, labels = digits
    made = {"scheme": "random-label", "carriers": images, "labels": labels, "classes": 10, "triggers": 30}
    return tuple(wmplug.create(who, **made, preprocess=example) for who in map(fixed_owner, ("Ada", "Eve")))


@pytest.fixture(scope="session")
def mark(marks):
    return marks[0]


@pytest.fixture(scope="session")
def pictures(digits):
    """(1797, 8, 8) float32 and (1797,) int32."""
    images, labels = digits
    return (images / 255).astype(np.float32), labels.astype(np.int32)
