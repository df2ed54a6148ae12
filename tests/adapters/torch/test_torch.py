import dataclasses
import json
import multiprocessing.popen_spawn_posix
import multiprocessing.reduction
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset, default_collate

import wmplug
from wmplug.adapters.torch import Watermarking, inject
from wmplug.adapters.torch.modules import ModuleSuspect, evaluating
from wmplug.adapters.torch.points import Hook
from wmplug.errors import (
    InjectionError,
    InjectionWarning,
    InputError,
    SuspectError,
    VerificationError,
    VerificationWarning,
)
from wmplug.schemes.random_label import RandomLabel

PURPOSES = ("input", "label", "schedule", "disclosure")


class Gradients(RandomLabel):
    name = "gradients"
    points = frozenset({"samples", "gradients"})


def secrets(mark, owner):
    keys = [mark.subkeys.key(purpose) for purpose in PURPOSES] + [owner._roots[0], owner.seal()._key]
    return keys + [key.hex().encode() for key in keys]


def take_a_step(net, loader):
    """As much of a loop as shows that the model is trained on what the loader yields."""
    net.train()(next(iter(loader))[0])


def hooks_of(model):
    hooks = [h for m in model.modules() for h in (*m._forward_hooks.values(), *m._forward_pre_hooks.values())]
    return [h for h in hooks if isinstance(h, Hook)]


@pytest.fixture(scope="module")
def runs(mark, dataset):
    """A marked net and its unmarked twin, trained alike, and the run of the first."""
    nets, seen = [], []
    for marked in (True, False):
        torch.manual_seed(0)
        net = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
        )
        loader = DataLoader(dataset, 64, shuffle=True, generator=torch.Generator().manual_seed(0))
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)

        def epoch(net=net, loader=loader, optimizer=optimizer):
            net.train()
            for x, y in loader:
                loss = torch.nn.functional.cross_entropy(net(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        if not marked:
            for _ in range(20):
                epoch()
        else:
            with Watermarking(mark, net, loader, rate=0.1, log=seen.append) as marking:
                for number in range(20):
                    epoch()
                    if number % 10 == 9:
                        marking.checkpoint(epoch=number, step=29 * (number + 1))
        nets.append(net)
    return *nets, marking, seen


class TestTraining:
    def test_the_model_is_proven_and_the_twin_and_a_rivals_mark_are_not(self, runs, mark, rivals_mark):
        own, twin, marking, _ = runs
        verdicts = [
            wmplug.verify(m, marking.suspect(net), exhaustive=True)
            for m, net in ((mark, own), (mark, twin), (rivals_mark, own))
        ]
        assert [v.state for v in verdicts] == ["proven", "inconclusive", "inconclusive"]
        assert verdicts[0].log10_p < -20
        assert min(v.log10_p for v in verdicts[1:]) > -2.5

    def test_costs_no_accuracy(self, runs, dataset):
        x, y = dataset.tensors
        own, twin = (float((net(x).argmax(1) == y).float().mean()) for net in runs[:2])
        assert own > twin - 0.02

    def test_checkpoints_are_logged_and_rise(self, runs):
        _, _, marking, seen = runs
        assert seen == marking.history
        assert [entry["step"] for entry in seen] == [290, 580]
        assert seen[1]["watermark/log10_p"] < seen[0]["watermark/log10_p"] < 0
        assert seen[1]["watermark/matches"] == marking.verdicts[1].matches
        assert seen[1]["watermark/rate"] == 0.1
        assert seen[1]["watermark/e_value"] > 1e6

    def test_nothing_is_left_in_model_and_loader(self, runs):
        own, _, marking, _ = runs
        assert not hooks_of(own)
        assert marking.loader.collate_fn is default_collate

    def test_replace_and_inject_teach_too(self, mark, make_net, loader, fit_net):
        assert inject(loader, mark, rate=0.15, mode="replace") is loader
        assert {len(y) for _, y in loader} == {64, 1797 % 64}
        net = fit_net(make_net(), loader, 15)
        assert wmplug.verify(mark, lambda x: net(torch.from_numpy(x))).proven
        with pytest.raises(InputError, match="makes none"):
            inject(loader, mark, rate="auto")


class TestPoints:
    def test_all_take_part_and_leave_no_trace(self, nudge, make_net, loader, fit_net):
        net = make_net()
        with Watermarking(nudge, net, loader) as marking:
            fit_net(net, loader, around=marking.loss)
            assert marking._points.shifted == marking._points.added == 29
        assert not hooks_of(net)

    def test_hooks_left_by_an_exception_before_are_stripped(self, nudge, make_net, loader):
        net = make_net()
        Watermarking(nudge, net, loader).__enter__()  # as if its frame had died
        assert len(hooks_of(net)) == 3
        with Watermarking(nudge, net, loader) as marking:
            assert len(hooks_of(net)) == 3
            take_a_step(net, loader)
            marking.loss(torch.tensor(1.0))
        assert not hooks_of(net)
        with pytest.raises(ZeroDivisionError), Watermarking(nudge, net, loader):
            raise ZeroDivisionError
        assert not hooks_of(net)
        assert loader.collate_fn is default_collate

    def test_a_scheme_that_needs_more_is_refused(self, owner, images, make_net, loader):
        mark = wmplug.create(owner, scheme=Gradients(), carriers=images, classes=10, triggers=10)
        with pytest.raises(InjectionError, match="'gradients' touches training at gradients, adapter 'torch'"):
            Watermarking(mark, make_net(), loader)

    def test_inject_alone_takes_schemes_of_samples(self, nudge, loader):
        with pytest.raises(InjectionError, match="'nudge'"):
            inject(loader, nudge)


class TestGuard:
    def test_is_satisfied_and_gone_after_a_step(self, mark, make_net, loader):
        net = make_net()
        with Watermarking(mark, net, loader):
            assert len(hooks_of(net)) == 1
            net.eval()(torch.zeros(2, 1, 8, 8))
            assert len(hooks_of(net)) == 1
            net.train()(next(iter(loader))[0])
            assert not hooks_of(net)

    def test_another_loader_is_an_error_within_a_few_steps(self, mark, make_net, loader, dataset, fit_net):
        net = make_net()
        marking = Watermarking(mark, net, loader)
        with pytest.raises(InjectionError, match="very loader"), marking:
            fit_net(net, DataLoader(dataset, 64))
        assert marking._guard.forwards == 4

    def test_a_rate_too_small_to_teach_is_an_error_at_the_end(self, mark, make_net, loader, fit_net):
        net = make_net()
        with pytest.raises(InjectionError, match="raise rate="), Watermarking(mark, net, loader, rate=1e-6):
            fit_net(net, loader)

    def test_a_loop_that_changes_the_batch_gets_a_warning(self, mark, make_net, loader):
        net = make_net()
        with Watermarking(mark, net, loader):
            batches = [x.flip(-1) for x, _ in loader]
            for x in batches[:3]:
                net(x)
            with pytest.warns(InjectionWarning, match="none was recognised"):
                net(batches[3])
            assert not hooks_of(net)

    def test_a_loader_that_does_not_shuffle_gets_a_warning(self, mark, make_net, dataset):
        few = DataLoader(torch.utils.data.Subset(dataset, range(300)), 64)
        net = make_net()
        with pytest.warns(InjectionWarning, match="shuffle=True"), Watermarking(mark, net, few):
            take_a_step(net, few)

    @pytest.mark.parametrize("scheme", ["mark", "nudge"])
    def test_a_model_that_is_never_trained_is_an_error_at_the_end(self, request, scheme, make_net, loader, fit_net):
        given = make_net()
        marking = Watermarking(request.getfixturevalue(scheme), given, loader).__enter__()
        fit_net(make_net(), loader)
        given.eval()(torch.zeros(2, 1, 8, 8))
        with pytest.raises(InjectionError, match="never called in training mode"):
            marking.__exit__(None, None, None)
        assert marking.board.injected > 0

    def test_outside_the_with_block_nothing_can_be_asked_of_it(self, nudge, make_net, loader):
        marking = Watermarking(nudge, make_net(), loader)
        for call in (marking.checkpoint, lambda: marking.loss(torch.tensor(1.0))):
            with pytest.raises(InjectionError, match="outside the with-block"):
                call()
        with pytest.raises(ZeroDivisionError), marking:
            raise ZeroDivisionError
        with pytest.raises(InjectionError, match="outside the with-block"):
            marking.checkpoint()
        assert not marking.history


class TestTwoMarks:
    def test_on_one_loader_or_model_the_second_is_refused_and_the_first_goes_on(
        self, mark, rivals_mark, make_net, loader, dataset
    ):
        net, other = make_net(), DataLoader(dataset, 64, shuffle=True)
        with Watermarking(mark, net, loader) as marking:
            with pytest.raises(InjectionError, match="active on this model"):
                Watermarking(rivals_mark, net, other).__enter__()
            with pytest.raises(InjectionError, match="active on this loader"):
                Watermarking(rivals_mark, make_net(), loader).__enter__()
            with pytest.raises(InjectionError, match="active on this loader"):
                inject(loader, rivals_mark)
            assert other.collate_fn is default_collate
            take_a_step(net, loader)
            assert marking.board.injected > 0
        with Watermarking(rivals_mark, net, loader):
            take_a_step(net, loader)

    def test_an_injected_loader_keeps_its_triggers(self, mark, rivals_mark, make_net, loader):
        inject(loader, mark)
        injected = loader.collate_fn
        with pytest.raises(InjectionError, match="make a new DataLoader"):
            inject(loader, rivals_mark)
        with pytest.raises(InjectionError, match="make a new DataLoader"):
            Watermarking(mark, make_net(), loader).__enter__()
        assert loader.collate_fn is injected

    def test_one_whose_frame_died_is_stripped(self, mark, rivals_mark, make_net, loader):
        net = make_net()
        Watermarking(mark, net, loader).__enter__()
        assert loader.collate_fn is not default_collate
        with Watermarking(rivals_mark, net, loader):
            take_a_step(net, loader)
        assert loader.collate_fn is default_collate
        assert not hooks_of(net)


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
        with pytest.raises(SuspectError):
            marking.checkpoint()
        assert [m.training for m in net.modules()] == modes

    def test_writes_a_sidecar_without_secrets(self, mark, owner, make_net, loader, tmp_path):
        net = make_net()
        with Watermarking(mark, net, loader) as marking:
            take_a_step(net, loader)
            verdict = marking.checkpoint(path=tmp_path / "run" / "net.pt")
            marking.verdicts.clear()
        text = (tmp_path / "run" / "wmplug.json").read_bytes()
        assert not any(secret in text for secret in secrets(mark, owner))
        assert json.loads(text) == {"watermark": mark.public, "verdict": json.loads(verdict.to_json())}
        assert [file.name for file in (tmp_path / "run").iterdir()] == ["wmplug.json"]

    def test_a_sidecar_that_cannot_be_written_costs_no_look(self, mark, make_net, loader, tmp_path):
        (tmp_path / "file").touch()
        marking = Watermarking(mark, make_net(), loader).__enter__()
        with pytest.raises(OSError, match="file"):
            marking.checkpoint(path=tmp_path / "file" / "net.pt")
        assert not marking.state_dict()["looks"]

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
        with told(kind, match="training ended"):
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

    def test_a_model_that_the_loop_calls_in_its_own_way_is_let_be(self, mark, make_net, loader):
        class Two(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.net = make_net()

            def forward(self, x, scale):
                return self.net(x) * scale

        net = Two()
        with Watermarking(mark, net, loader):
            net(next(iter(loader))[0], 2.0)

    def test_a_net_that_says_nan_is_an_error(self, mark, make_net, loader):
        net = make_net()
        torch.nn.init.constant_(net[3].bias, torch.nan)
        with Watermarking(mark, net, loader) as marking:
            take_a_step(net, loader)
            with pytest.raises(SuspectError, match="NaN"):
                marking.checkpoint()

    def test_asks_named_batches_by_name(self, mark, dataset, make_net):
        class Named(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.net = make_net()

            def forward(self, pixel_values):
                return {"scores": self.net(pixel_values)}

        rows = [{"pixel_values": x, "labels": y} for x, y in dataset]
        with Watermarking(mark, Named(), DataLoader(rows, 64, shuffle=True)) as marking:
            marking.model(**{k: v for k, v in next(iter(marking.loader)).items() if k != "labels"})
            with pytest.raises(SuspectError, match="returned a dict without logits"):
                marking.checkpoint()
            marking._forward = lambda net, batch: net(batch["pixel_values"])["scores"]
            assert marking.checkpoint().queries == 60
            marking.verdicts.clear()


class TestBadInput:
    @pytest.mark.parametrize(
        ("rows", "error", "says"),
        [
            ([(torch.zeros(1, 9, 9), 0)] * 8, InputError, "has shape"),
            ([(torch.zeros(1, 8, 8, dtype=torch.uint8), 0)] * 8, InputError, "does not guess the scale"),
            ([(torch.zeros(1, 8, 8), torch.zeros(10))] * 8, InputError, "soft targets"),
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

    def test_a_file_name_is_no_watermark(self, make_net, loader):
        with pytest.raises(InputError, match=r"wmplug\.load"):
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


class TestSecrets:
    def test_none_is_in_a_pickled_collate(self, mark, owner, loader):
        inject(loader, mark)
        pickled = pickle.dumps(loader.collate_fn)
        assert mark.lessons()[0][0].tobytes() in pickled  # the search would find what is there
        assert not any(secret in pickled for secret in secrets(mark, owner))

    def test_none_is_in_what_spawned_workers_are_given(self, mark, owner, dataset, make_net, monkeypatch):
        given = []
        dump = multiprocessing.reduction.dump

        def recording(value, file, protocol=None):
            dump(value, file, protocol)
            given.append(file.getvalue())

        monkeypatch.setattr(multiprocessing.popen_spawn_posix.reduction, "dump", recording)
        loader = DataLoader(dataset, 512, shuffle=True, num_workers=1, multiprocessing_context="spawn")
        net = make_net()
        with Watermarking(mark, net, loader):
            assert sum(len(net(x)) for x, _ in loader) > 1797
        assert any(b"TriggerCollate" in blob for blob in given)
        assert not any(secret in blob for blob in given for secret in secrets(mark, owner))

    def test_none_is_in_a_net_saved_in_training(self, nudge, owner, make_net, loader, tmp_path):
        net = make_net()
        with Watermarking(nudge, net, loader) as marking:
            take_a_step(net, loader)
            marking.loss(torch.tensor(1.0))
            torch.save(net, tmp_path / "net.pt")
            torch.save(net.state_dict(), tmp_path / "state.pt")
        for file in ("net.pt", "state.pt"):
            blob = (tmp_path / file).read_bytes()
            assert net[1].weight.detach().numpy().tobytes() in blob
            assert not any(secret in blob for secret in secrets(nudge, owner))
            assert nudge.scheme.constants(nudge.triggers, None)["weights"].astype(np.float32).tobytes() not in blob


class TestWorkers:
    def test_any_number_gives_the_same_triggers(self, mark, dataset, make_net):
        rng = np.random.default_rng(5)
        epochs = [rng.permutation(256).tolist() for _ in range(2)]

        class Orders(torch.utils.data.Sampler):
            """Two epochs; not a generator's, which persistent workers draw from less often."""

            def __init__(self):
                self.left = list(epochs)

            def __iter__(self):
                return iter(self.left.pop(0) if self.left else epochs[0])

            def __len__(self):
                return 256

        def batches(**options):
            loader = DataLoader(TensorDataset(*dataset[:256]), 64, sampler=Orders(), **options)
            net = make_net()
            with Watermarking(mark, net, loader, rate=0.05) as marking:
                seen = [torch.cat([x.flatten(1), y[: len(net(x)), None]], 1) for _ in range(2) for x, y in loader]
                assert marking.board.injected == sum(len(rows) for rows in seen) - 512
                assert marking.board.batches == 8
            if options.get("persistent_workers"):
                assert all(len(y) == 64 for _, y in loader)  # workers that live on inject no more
            return seen

        alone = batches()
        assert {len(rows) for rows in alone} == {67, 68}
        for options in (
            {"num_workers": 2},
            {"num_workers": 2, "persistent_workers": True},
            {"num_workers": 2, "multiprocessing_context": "spawn"},
        ):
            assert all(torch.equal(a, b) for a, b in zip(alone, batches(**options), strict=True))


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
