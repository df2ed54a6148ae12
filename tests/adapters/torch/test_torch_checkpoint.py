import dataclasses
import json

import pytest
import torch
from steps import hooks_of, secrets, take_a_step
from torch.utils.data import DataLoader, IterableDataset, default_collate

from wmplug.adapters.torch import Watermarking
from wmplug.adapters.torch.modules import evaluating
from wmplug.errors import (
    InputError,
    VerificationError,
    VerificationWarning,
)


class Named(torch.nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, pixel_values):
        return {"scores": self.net(pixel_values)}


class TestCheckpoint:
    def test_restores_the_mode_of_every_submodule(self, mark, make_net, loader):
        net = torch.nn.Sequential(*make_net(), torch.nn.Dropout(0.5)).train()
        net[1].eval()
        modes = [m.training for m in net.modules()]
        marking = Watermarking(mark, net, loader).__enter__()
        assert [m.training for m in net.modules()] == modes
        marking.checkpoint()
        assert [m.training for m in net.modules()] == modes
        with evaluating(net):
            assert not any(m.training for m in net.modules())
        assert [m.training for m in net.modules()] == modes
        torch.nn.init.constant_(net[1].bias, torch.nan)
        with pytest.warns(VerificationWarning, match="cannot be verified"):
            assert marking.checkpoint() is None
        assert [m.training for m in net.modules()] == modes

    def test_writes_a_sidecar_without_secrets(self, mark, owner, make_net, loader, tmp_path):
        net = make_net()
        with Watermarking(mark, net, loader) as marking:
            take_a_step(net, loader)
            verdict = marking.checkpoint(step=7, path=tmp_path / "run" / "net.pt")
            marking.verdicts.clear()
        text = (tmp_path / "run" / "wmplug.json").read_bytes()
        assert not any(secret in text for secret in secrets(mark, owner))
        told = {"step": 7, "rate": 0.06, "verdict": json.loads(verdict.to_json())}
        assert json.loads(text) == {"watermark": mark.public, **told}
        assert [file.name for file in (tmp_path / "run").iterdir()] == ["wmplug.json"]

    @pytest.mark.parametrize("how", ["warn", "stop"])
    def test_a_sidecar_that_cannot_be_written_is_told_and_ends_nothing(self, mark, make_net, loader, tmp_path, how):
        (tmp_path / "file").touch()
        marking = Watermarking(mark, make_net(), loader, on_failure=how).__enter__()
        with pytest.warns(VerificationWarning, match=r"wmplug\.json has no place at .*file"):
            verdict = marking.checkpoint(path=tmp_path / "file" / "net.pt")
        assert (verdict.looks, marking.stopped) == (1, False)

    def test_a_sidecar_that_cannot_be_written_ends_a_run_that_asks_for_it(self, mark, make_net, loader, tmp_path):
        (tmp_path / "file").touch()
        marking = Watermarking(mark, make_net(), loader, on_failure="raise").__enter__()
        with pytest.raises(VerificationError, match="has no place"):
            marking.checkpoint(path=tmp_path / "file" / "net.pt")

    @pytest.mark.parametrize("how", ["warn", "stop", "raise"])
    def test_a_mark_that_is_lost_or_missing_is_told(self, mark, make_net, loader, how):
        right = {x.tobytes(): y for x, y in mark.lessons()}
        knows = [True]

        def forward(net, batch):
            answers = [right[x.numpy().tobytes()] if knows[0] else 0 for x in batch[0]]
            return torch.nn.functional.one_hot(torch.tensor(answers), 10).float()

        marking = Watermarking(mark, make_net(), loader, on_failure=how, forward=forward)
        marking.__enter__()
        take_a_step(marking.model, loader)
        assert marking.checkpoint().proven
        knows[0] = False
        told = pytest.raises if how == "raise" else pytest.warns
        kind = VerificationError if how == "raise" else VerificationWarning
        with told(kind, match="proven earlier"):
            marking.checkpoint()
        assert marking.stopped == (how == "stop")
        with told(kind, match="does not prove the watermark"):
            marking.__exit__(None, None, None)

    def test_auto_raises_a_low_rate_and_lowers_a_high_one(self, mark, make_net, loader):
        right = {x.tobytes(): y for x, y in mark.lessons()}
        share = [0.0]

        def forward(net, batch):
            kept = int(share[0] * len(batch[0]))
            answers = [right[x.numpy().tobytes()] if i < kept else 0 for i, x in enumerate(batch[0])]
            return torch.nn.functional.one_hot(torch.tensor(answers), 10).float()

        with Watermarking(mark, make_net(), loader, rate="auto", forward=forward) as marking:
            take_a_step(marking.model, loader)
            rates = []
            for share[0] in (0, 0, 1, 1, 1):
                marking.checkpoint()
                rates.append(marking.board.rate)
            state = marking.state_dict()
        assert rates[0] == 90_000
        assert rates == [90_000, 135_000, 108_000, 86_400, 69_120]
        assert [entry["watermark/rate"] for entry in marking.history[1:]] == [r / 1e6 for r in rates[:-1]]
        again = Watermarking(mark, make_net(), loader, rate="auto", forward=forward)
        again.load_state_dict(json.loads(json.dumps(state)))
        with again:
            take_a_step(again.model, loader)
            assert again.board.rate == 69_120
            assert again.checkpoint().looks == 6

    def test_another_number_of_classes_is_an_error_before_training(self, mark, make_net, loader):
        net = make_net(7).train()
        state = torch.get_rng_state()
        with pytest.raises(InputError, match="gives 7 scores an input, the watermark was made for 10 classes"):
            Watermarking(mark, net, loader).__enter__()
        assert torch.equal(torch.get_rng_state(), state)
        assert net.training
        assert not hooks_of(net)
        assert loader.collate_fn is default_collate

    def test_a_model_that_the_loop_calls_in_its_own_way_needs_forward(self, mark, make_net, loader):
        class Two(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.net = make_net()

            def forward(self, x, scale):
                return self.net(x) * scale

        net = Two()
        with pytest.raises(InputError, match=r"before the first step .*scale.*pass forward="):
            Watermarking(mark, net, loader).__enter__()
        assert loader.collate_fn is default_collate
        with Watermarking(mark, net, loader, forward=lambda net, batch: net(batch[0], 2.0)) as marking:
            net(next(iter(loader))[0], 2.0)
            assert marking.checkpoint().queries == 60
            marking.verdicts.clear()

    def test_a_dict_whose_labels_have_another_name_says_forward_before_training(self, mark, dataset, make_net):
        rows = [{"pixel_values": x, "target": y} for x, y in dataset]
        named = dataclasses.replace(mark, preprocess=lambda x, y: {"pixel_values": torch.tensor(x)[None], "target": y})
        with pytest.raises(InputError, match=r"before the first step .*'target'.*pass forward="):
            Watermarking(named, Named(make_net()), DataLoader(rows, 64, shuffle=True)).__enter__()

    def test_a_stream_is_rehearsed_in_the_first_training_forward(self, mark, dataset, make_net):
        class Stream(IterableDataset):
            def __iter__(self):
                return iter([(x, int(y)) for x, y in dataset][:256])

        loader = DataLoader(Stream(), 64)
        with Watermarking(mark, make_net(), loader) as marking:
            take_a_step(marking.model, loader)
            assert marking.checkpoint().queries == 60
            marking.verdicts.clear()
        with pytest.raises(InputError, match="gives 7 scores"), Watermarking(mark, make_net(7), loader) as marking:
            marking.model(next(iter(loader))[0])

    def test_a_net_that_says_nan_is_refused_before_training_and_told_later(self, mark, make_net, loader):
        net = make_net()
        torch.nn.init.constant_(net[3].bias, torch.nan)
        with pytest.raises(InputError, match="answers NaN before it is trained"):
            Watermarking(mark, net, loader).__enter__()
        torch.nn.init.constant_(net[3].bias, 0.0)
        with Watermarking(mark, net, loader, on_failure="stop") as marking:
            take_a_step(net, loader)
            torch.nn.init.constant_(net[3].bias, torch.nan)
            with pytest.warns(VerificationWarning, match="NaN"):
                assert marking.checkpoint() is None
            assert not marking.stopped

    def test_asks_named_batches_by_name(self, mark, dataset, make_net):
        rows = [{"pixel_values": x, "labels": y} for x, y in dataset]
        net, loader = Named(make_net()), DataLoader(rows, 64, shuffle=True)
        with pytest.raises(InputError, match=r"returned a dict without logits.*pass forward="):
            Watermarking(mark, net, loader).__enter__()
        scores = lambda net, batch: net(batch["pixel_values"])["scores"]  # noqa: E731
        with Watermarking(mark, net, loader, forward=scores) as marking:
            marking.model(**{k: v for k, v in next(iter(marking.loader)).items() if k != "labels"})
            assert marking.checkpoint().queries == 60
            marking.verdicts.clear()

    def test_the_end_of_the_block_is_verified_where_that_is_asked_for(self, mark, make_net, loader):
        options = {"rate": "auto", "verify_on": ("train_end",), "batch_size": 7}
        marking = Watermarking(mark, make_net(), loader, **options).__enter__()
        take_a_step(marking.model, loader)
        assert marking.suspect().batch_size == 7
        with pytest.warns(VerificationWarning, match="does not prove"):
            marking.__exit__(None, None, None)
        assert len(marking.verdicts) == 1
        assert marking.board.rate == 0  # workers that live on have the wrapper still
