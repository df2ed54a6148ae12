"""What is refused before training, and what a model returns."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

from wmplug.adapters.torch import Watermarking, inject
from wmplug.adapters.torch.modules import ModuleSuspect
from wmplug.errors import (
    InjectionError,
    InjectionWarning,
    InputError,
    KeyFileError,
    SuspectError,
)


class TestBadInput:
    @pytest.mark.parametrize(
        ("rows", "error", "says"),
        [
            ([(torch.zeros(1, 9, 9), 0)] * 8, InputError, "has shape"),
            ([(torch.zeros(1, 8, 8, dtype=torch.uint8), 0)] * 8, InputError, "does not guess the scale"),
            ([(torch.zeros(1, 8, 8), torch.zeros(10))] * 8, InputError, "several labels an input"),
            ([torch.zeros(1, 8, 8)] * 8, InputError, "pass preprocess="),
        ],
    )
    def test_a_dataset_that_triggers_do_not_fit_is_refused_before_training(self, mark, make_net, rows, error, says):
        loader = DataLoader(rows, 4, shuffle=True)
        with pytest.raises(error, match=says):
            Watermarking(mark, make_net(), loader).__enter__()
        assert loader.collate_fn is default_collate

    def test_a_loader_that_does_not_batch_is_refused(self, mark, make_net, dataset):
        with pytest.raises(InjectionError, match="batch_size=None"):
            Watermarking(mark, make_net(), DataLoader(dataset, batch_size=None)).__enter__()

    @pytest.mark.parametrize(
        "options", [{"rate": 0}, {"rate": 0.9}, {"rate": "much"}, {"mode": "x"}, {"on_failure": "x"}]
    )
    def test_options_out_of_range_are_refused(self, mark, make_net, loader, options):
        with pytest.raises(InputError, match=next(iter(options))):
            Watermarking(mark, make_net(), loader, **options).__enter__()

    def test_the_name_of_a_file_that_is_not_there(self, make_net, loader):
        with pytest.raises(KeyFileError, match=r"rl\.wm is not there"):
            Watermarking("rl.wm", make_net(), loader)
        with pytest.raises(InputError, match=r"wmplug\.load"):
            inject(loader, "rl.wm")

    def test_a_head_for_a_scheme_of_samples_is_refused(self, mark, make_net, loader):
        with pytest.raises(InputError, match="leave head= out"):
            Watermarking(mark, make_net(), loader, head="nope")

    def test_a_preprocess_that_ignores_the_answer_is_refused(self, mark, make_net, loader):
        ignoring = dataclasses.replace(mark, preprocess=lambda x, answer: (x, 0))
        with pytest.raises(InputError, match="with the label 0, so another watermark"):
            Watermarking(ignoring, make_net(), loader).__enter__()
        assert loader.collate_fn is default_collate


def from_one(dataset):
    return TensorDataset(dataset.tensors[0], dataset.tensors[1] + 1)


def one_epoch(mark, net, loader):
    with Watermarking(mark, net, loader) as marking:
        for x, _ in loader:
            net(x)
        marking.checkpoint()


class TestOtherLabels:
    @pytest.mark.filterwarnings("ignore:the trained model does not prove")
    @pytest.mark.parametrize("workers", [0, 1])
    def test_are_told_once(self, mark, make_net, dataset, workers):
        loader = DataLoader(from_one(dataset), 64, shuffle=True, num_workers=workers)
        with pytest.warns(InjectionWarning, match=r"holds the label 10, and .* made for 10 classes, 0 to 9") as told:
            one_epoch(mark, make_net(), loader)
        assert sum("holds the label" in str(one.message) for one in told) == 1

    def test_are_told_by_a_loader_alone(self, mark, dataset):
        loader = inject(DataLoader(from_one(dataset), 64, shuffle=True), mark)
        with pytest.warns(InjectionWarning, match="holds the label 10") as told:
            assert len(list(loader)) == 29
        assert len(told) == 1

    def test_are_found_behind_the_first_batch(self, mark, dataset):
        rows = [dataset[i] for i in range(64)] + [(dataset[0][0], torch.tensor(35))]
        loader = inject(DataLoader(rows, 16, sampler=torch.arange(65).tolist()), mark)
        batches = iter(loader)
        next(batches)
        with pytest.warns(InjectionWarning, match="holds the label 35"):
            assert len(list(batches)) == 4

    def test_that_a_loss_in_the_model_ignores_are_not_told(self, mark, make_net, dataset):
        net = make_net()
        net.add_module("loss", torch.nn.CrossEntropyLoss(ignore_index=10))
        net.forward = lambda x: net[:4](x)
        loader = DataLoader(from_one(dataset), 64, shuffle=True)
        with Watermarking(mark, net, loader):
            net(next(iter(loader))[0])


class Wrapped(torch.nn.Module):
    """A model in the ways people return logits."""

    def __init__(self, wrap):
        super().__init__()
        self.net, self.wrap = torch.nn.Linear(4, 3), wrap

    def forward(self, x):
        return self.wrap(self.net(x))


@pytest.mark.parametrize(
    "wrap", [lambda z: z, lambda z: {"logits": z, "hidden": 0 * z}, lambda z: (z, 0 * z), lambda z: [z]]
)
def test_logits_are_found_in_what_a_model_returns(wrap):
    model = Wrapped(wrap)
    inputs = np.eye(4, dtype=np.float32)
    expected = model.net(torch.as_tensor(inputs)).detach().numpy()
    np.testing.assert_allclose(ModuleSuspect(model).answer(list(inputs)), expected, rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda z: {"loss": z.sum()}, lambda z: "logits", lambda z: ()])
def test_output_without_logits_is_refused(wrap):
    with pytest.raises(SuspectError, match="without logits"):
        ModuleSuspect(Wrapped(wrap)).answer([np.zeros(4, np.float32)])


def test_an_exported_model_is_asked_in_the_mode_in_which_it_was_exported():
    net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3)).eval()
    dynamic = ({0: torch.export.Dim("batch", max=512)},)
    exported = torch.export.export(net, (torch.zeros(2, 4),), dynamic_shapes=dynamic).module()
    inputs = list(np.eye(4, dtype=np.float32))
    expected = ModuleSuspect(net).answer(inputs)
    np.testing.assert_allclose(ModuleSuspect(exported).answer(inputs), expected, rtol=1e-6)
    drop = torch.nn.Dropout(0.5)  # comes after the part that raises
    around = torch.nn.Sequential(exported, drop)
    np.testing.assert_allclose(ModuleSuspect(around).answer(inputs), expected, rtol=1e-6)
    assert drop.training
