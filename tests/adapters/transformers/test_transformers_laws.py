"""Runs of the Trainer made at random: the live verdict is that of `verify` afterwards."""

import dataclasses
import random

import hypothesis.strategies as st
import pytest
import small
import torch
from hypothesis import HealthCheck, Phase, given, settings
from transformers import BatchEncoding

import wmplug
from wmplug.adapters.transformers import WatermarkCallback


@dataclasses.dataclass(frozen=True)
class Collator:
    """What data collators of others do, one after the other; can be pickled."""

    order: str
    views: int
    drops: bool
    kind: str

    def __call__(self, rows):
        rows = [dict(row) for row in rows]
        labels = [row.pop("labels") for row in rows]
        pairs = [
            pair for pair in zip(rows, labels, strict=True) if not (self.drops and pair[0]["pixel_values"].sum() > 22)
        ]
        pairs = pairs or list(zip(rows, labels, strict=True))[:1]
        if self.order == "sorted":
            pairs = sorted(pairs, key=lambda pair: -float(pair[0]["pixel_values"].sum()))
        if self.order == "shuffled":
            pairs = random.sample(pairs, len(pairs))
        pairs = [pair for pair in pairs for _ in range(self.views)]
        batch = {
            "pixel_values": torch.stack([row["pixel_values"] for row, _ in pairs]),
            "labels": torch.tensor([label for _, label in pairs]),
        }
        return BatchEncoding(batch) if self.kind == "encoding" else batch


COLLATORS = st.builds(
    Collator,
    st.sampled_from(["kept", "sorted", "shuffled"]),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from(["dict", "encoding"]),
)


@pytest.mark.filterwarnings("ignore:.*none was recognised", "ignore:.*cannot be verified")
@settings(
    deadline=None,
    max_examples=14,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(COLLATORS, st.sampled_from([0, 0, 2]), st.sampled_from(["append", "replace"]), st.sampled_from([3, 16, 32]))
def test_live_and_afterwards_say_the_same(mark, data, tmp_path_factory, collate, workers, mode, size):
    callback = WatermarkCallback(mark, rate=0.4, mode=mode, verify_on=("train_end",))
    options = {"data_collator": collate, "max_steps": 4, "dataloader_num_workers": workers, "learning_rate": 1e-3}
    options["per_device_train_batch_size"] = size
    trainer = small.trainer(tmp_path_factory.mktemp("run"), data[:128], [callback], **options)
    trainer.train()
    after = wmplug.verify(mark, trainer.model, exhaustive=True)
    questions = mark.triggers.samples(40)
    live = callback._loop.suspect().answer(questions).argmax(1).tolist()
    pixels = torch.stack([small.prepare(image, 0)["pixel_values"] for image in questions])
    with torch.no_grad():
        expected = trainer.model.eval()(pixel_values=pixels).logits.argmax(1).tolist()
    # What the collator drops is dropped live too, and is a failed query there.
    assert callback.verdict.failed or callback.verdict.matches == after.matches
    assert live == expected
    assert len(set(expected)) > 2
