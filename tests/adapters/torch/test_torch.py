import pytest
import torch
from steps import hooks_of, take_a_step
from torch.utils.data import DataLoader, default_collate

import wmplug
from wmplug.adapters.torch import Watermarking, inject
from wmplug.errors import (
    InjectionError,
    InjectionWarning,
    InputError,
)
from wmplug.schemes.random_label import RandomLabel


class Gradients(RandomLabel):
    name = "gradients"
    points = frozenset({"samples", "gradients"})


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
        assert seen[1]["watermark/log10_e"] > 6

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
        with pytest.raises(InjectionError, match="a higher rate="), Watermarking(mark, net, loader, rate=1e-6):
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
