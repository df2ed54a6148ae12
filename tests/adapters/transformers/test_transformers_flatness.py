"""Flat minima in the Trainer: while it trains, and no longer."""

import pytest
import small
import torch
from transformers import TrainerCallback

from wmplug import InputError
from wmplug.adapters.transformers import WatermarkCallback


class Interrupt(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        raise KeyboardInterrupt


def trained(folder, data, callback, **options):
    model = small.tiny()
    small.trainer(folder, data, [callback], model, **options).train()
    return torch.cat([weight.detach().flatten() for weight in model.parameters()])


def marking(mark, flat):
    return WatermarkCallback(mark, rate=0.2, verify_on=(), flat=flat)


@pytest.mark.parametrize("options", [{}, {"gradient_accumulation_steps": 2, "max_steps": 3}, {"bf16": True}], ids=str)
def test_training_goes_another_way(tmp_path, data, mark, options):
    plain, again, flat = (trained(tmp_path, data, marking(mark, radius), **options) for radius in (0.0, 0.0, 0.02))
    assert torch.equal(plain, again)
    assert torch.isfinite(flat).all()
    assert not torch.allclose(plain, flat)


def test_nothing_is_added_once_training_has_ended(tmp_path, data, mark):
    callback, model = marking(mark, 0.02), small.tiny()
    small.trainer(tmp_path, data, [callback], model).train()
    model.zero_grad()
    optimizer = torch.optim.SGD(model.parameters(), 0.0)
    model(**torch.utils.data.default_collate(data[:4])).loss.backward()
    plain = [weight.grad.clone() for weight in model.parameters()]
    optimizer.step()
    assert all(torch.equal(a, weight.grad) for a, weight in zip(plain, model.parameters(), strict=True))


def test_a_run_that_was_interrupted_does_not_count_twice(tmp_path, data, mark):
    callback, model = marking(mark, 0.02), small.tiny()
    trainer = small.trainer(tmp_path, data, [callback, Interrupt()], model)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    model.load_state_dict(small.tiny().state_dict())
    small.trainer(tmp_path, data, [callback], model).train()
    again = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    assert torch.equal(again, trained(tmp_path, data, marking(mark, 0.02)))


def test_a_radius_that_is_none_is_refused(mark):
    with pytest.raises(InputError, match=r"flat=0\.9"):
        WatermarkCallback(mark, flat=0.9)
