"""Runs of the Trainer made at random: the live verdict is that of `verify` afterwards."""

import dataclasses
import random

import hypothesis.strategies as st
import numpy as np
import pytest
import small
import torch
from hypothesis import HealthCheck, Phase, given, settings
from torch.utils.data import DataLoader, WeightedRandomSampler
from transformers import BatchEncoding, Trainer

import wmplug
from wmplug.adapters.transformers import WatermarkCallback


@dataclasses.dataclass(frozen=True)
class Collator:
    """What data collators of others do, one after the other; can be pickled."""

    order: str
    views: int
    drops: bool
    sides: tuple[int, int]
    kind: str

    def __call__(self, rows):
        rows = [dict(row) for row in rows]
        labels = [row.pop("labels") for row in rows]
        pairs = [
            pair for pair in zip(rows, labels, strict=True) if not (self.drops and pair[0]["pixel_values"].sum() > 22)
        ]
        pairs = pairs or list(zip(rows, labels, strict=True))[:1]  # of no rows, none
        if self.order == "sorted":
            pairs = sorted(pairs, key=lambda pair: -float(pair[0]["pixel_values"].sum()))
        if self.order == "shuffled":
            pairs = random.sample(pairs, len(pairs))
        pairs = [pair for pair in pairs for _ in range(self.views)]
        sides = self.sides if pairs else (0, 0)
        pixels = torch.cat([row["pixel_values"][None] for row, _ in pairs] or [torch.zeros(0, 8, 8)])
        labels = torch.tensor([label for _, label in pairs], dtype=torch.long)
        batch = {
            "pixel_values": torch.nn.functional.pad(pixels, (0, 0, 0, 0, *sides)),
            "labels": torch.nn.functional.pad(labels, sides, value=-100),
        }
        return BatchEncoding(batch) if self.kind == "encoding" else batch


COLLATORS = st.builds(
    Collator,
    st.sampled_from(["kept", "sorted", "shuffled"]),
    st.integers(1, 2),
    st.booleans(),
    st.sampled_from([(0, 0), (0, 3), (2, 0), (2, 1)]),
    st.sampled_from(["dict", "encoding"]),
)


@st.composite
def samplings(draw):
    """What a loader is told of its batches: a size and how rows are drawn, or batches of sizes from none on."""
    if draw(st.booleans()):
        return draw(st.sampled_from(["random", "weighted"])), draw(st.sampled_from([3, 16, 32]))
    sizes = draw(st.lists(st.integers(0, 20), min_size=4, max_size=4).filter(any))
    rng = random.Random(draw(st.integers(0, 99)))
    return "batches", [rng.sample(range(128), size) for size in sizes]


class Summed(small.Tiny):
    """Its loss is a sum: of a batch without rows, 0."""

    def forward(self, pixel_values, labels=None):
        output = super().forward(pixel_values)
        if labels is not None:
            output["loss"] = torch.nn.functional.cross_entropy(output.logits, labels, reduction="sum")
        return output


class Sampled(Trainer):
    """Draws rows as told, beside the Trainer's own way."""

    sampling = ("random", 16)

    def _get_train_sampler(self, dataset=None):
        if self.sampling[0] == "weighted":
            return WeightedRandomSampler([1.0, 3.0] * 64, 128, generator=torch.Generator().manual_seed(3))
        return super()._get_train_sampler(dataset)

    def get_train_dataloader(self):
        kind, how = self.sampling
        if kind != "batches":
            return super().get_train_dataloader()
        workers = self.args.dataloader_num_workers
        loader = DataLoader(self.train_dataset, batch_sampler=how, collate_fn=self.data_collator, num_workers=workers)
        return self.accelerator.prepare(loader)


@pytest.mark.filterwarnings(
    "ignore:.*none was recognised", "ignore:.*cannot be verified", "ignore:Generating overly large repr"
)
@settings(
    deadline=None,
    max_examples=14,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(COLLATORS, st.sampled_from([0, 0, 2]), st.sampled_from(["append", "replace"]), samplings())
def test_live_and_afterwards_say_the_same(mark, data, tmp_path_factory, collate, workers, mode, sampling):
    callback = WatermarkCallback(mark, rate=0.4, mode=mode, verify_on=("train_end",))
    options = {"max_steps": 4, "dataloader_num_workers": workers, "learning_rate": 1e-3}
    options["per_device_train_batch_size"] = sampling[1] if sampling[0] != "batches" else 16
    arguments = small.arguments(tmp_path_factory.mktemp("run"), **options)
    made = {"model": small.tiny(kind=Summed), "train_dataset": data[:128], "data_collator": collate}
    trainer = Sampled(args=arguments, callbacks=[callback], **made)
    trainer.sampling = sampling
    trainer.train()
    after = wmplug.verify(mark, trainer.model, exhaustive=True)
    questions = mark.triggers.samples(40)
    live = callback._loop.suspect().answer(questions)
    pixels = torch.stack([small.prepare(image, 0)["pixel_values"] for image in questions])
    with torch.no_grad():
        expected = trainer.model.eval()(pixel_values=pixels).logits.numpy()
    assert trainer.state.global_step == 4
    assert (callback.verdict.failed, callback.verdict.matches) == (0, after.matches)
    np.testing.assert_allclose(live, expected, rtol=1e-3, atol=1e-4)
    assert len(np.unique(expected.round(3), axis=0)) == len(questions)  # else any order would do
