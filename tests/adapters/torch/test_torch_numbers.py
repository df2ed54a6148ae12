"""What the task of numbers reads of a module's outputs."""

import torch

from wmplug.tasks import Numbers


def test_tensors_are_read():
    outputs = torch.tensor([[0.5], [1.5]], dtype=torch.bfloat16, requires_grad=True)
    assert [one.answer for one in Numbers().read(outputs, 2, "a module")] == [0.5, 1.5]
