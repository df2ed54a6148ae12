import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import wmplug
from wmplug.adapters.accelerate import Watermarking
from wmplug.adapters.torch.points import Hook
from wmplug.errors import InjectionError, InputError

TWO = Path(__file__).with_name("two.py")
PASSPHRASE = "correct horse battery staple"
CARRIERS = (load_digits().images / 16).astype(np.float32)


@pytest.fixture(scope="module")
def mark(owner):
    return wmplug.create(owner, scheme="random-label", carriers=CARRIERS, classes=10, triggers=60)


@pytest.fixture(scope="module")
def two(mark, tmp_path_factory):
    """What each of two processes was given and told, and their folder."""
    folder = tmp_path_factory.mktemp("two")
    mark.save(folder / "mark.wm")
    torchrun = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "WMPLUG_PASSPHRASE": PASSPHRASE}
    done = subprocess.run([*torchrun, TWO, folder], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)], folder


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("dispatch", [False, True], ids=["fetch", "dispatch"])
@pytest.mark.parametrize("split", [False, True], ids=["whole", "split"])
def test_two_processes_each_get_their_share_and_one_verdict(two, split, dispatch, after):
    ranks = [told[f"{split} {dispatch} {after}"] for told in two[0]]
    own = 32 if split else 64
    few = int(own * 0.06 / 0.94)  # 6 % of what the model sees, in whole triggers
    for rank in ranks:
        assert sum(rank["triggers"]) / sum(rank["sizes"]) == pytest.approx(0.06, abs=0.012)
        assert rank["rate"] == 90_000
        if split or not dispatch:
            shown = [size - n for size, n in zip(rank["sizes"], rank["triggers"], strict=True)]
            assert shown[:-1] == [own] * (len(shown) - 1)
            assert set(rank["triggers"][:-1]) <= {few, few + 1}
    if dispatch and not split:
        # Whole batches are joined and cut in the middle: rows at the cut change sides, and an odd one is repeated.
        sizes, triggers = (
            [sum(both) for both in zip(*(r[k] for r in ranks), strict=True)] for k in ("sizes", "triggers")
        )
        assert {size - n for size, n in zip(sizes[:-1], triggers[:-1], strict=True)} <= {2 * own, 2 * own + 1}
        assert set(triggers[:-1]) <= {2 * few, 2 * few + 1, 2 * few + 2}
    if dispatch and split:
        assert ranks[0]["triggers"][:-1] == ranks[1]["triggers"][:-1]
    assert ranks[0]["verdict"] == ranks[1]["verdict"]
    assert [rank["logged"] for rank in ranks] == [1, 0]


def test_the_main_process_writes_the_sidecar(two):
    told, folder = two
    assert json.loads((folder / "wmplug.json").read_text())["verdict"] == told[0]["True True True"]["verdict"]


def net_and_loader():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    data = TensorDataset(torch.from_numpy(CARRIERS)[:, None], torch.from_numpy(load_digits().target))
    return net, DataLoader(data, 64, shuffle=True)


class Tracker:
    name = "seen"
    requires_logging_directory = False
    main_process_only = True

    def __init__(self):
        self.seen = []

    def log(self, values, step=None, **kwargs):
        self.seen.append((step, values))


@pytest.mark.filterwarnings("ignore:Watermarking.*was not entered")  # the twin is not marked
@pytest.mark.parametrize("after", [False, True])
def test_one_process_is_proven_and_a_twin_and_a_rival_are_not(mark, rival, after):
    accelerator, verdicts, nets = Accelerator(cpu=True), [], []
    accelerator.trackers = [Tracker()]
    for marked in (True, False):
        net, loader = net_and_loader()
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        if after or not marked:
            net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
        marking = Watermarking(mark, net, loader, accelerator=accelerator, rate=0.1)
        if marked:
            marking.__enter__()
            if not after:
                net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
        for _ in range(12):
            for x, y in loader:
                optimizer.zero_grad()
                accelerator.backward(torch.nn.functional.cross_entropy(net(x), y))
                optimizer.step()
        if marked:
            assert marking.checkpoint(step=7).proven
            marking.__exit__(None, None, None)
            assert not any(isinstance(h, Hook) for m in net.modules() for h in m._forward_pre_hooks.values())
            assert all(len(y) <= 64 for _, y in loader)
        nets.append(net)
        verdicts.append(wmplug.verify(mark, marking.suspect(), exhaustive=True))
    others = wmplug.create(rival, scheme="random-label", carriers=CARRIERS, classes=10, triggers=60)
    verdicts.append(wmplug.verify(others, nets[0], exhaustive=True))
    assert [v.state for v in verdicts] == ["proven", "inconclusive", "inconclusive"]
    ((step, values),) = accelerator.trackers[0].seen
    assert step == 7
    assert set(values) == {f"watermark/{name}" for name in ("log10_p", "log10_e", "matches", "rate", "state")}


def test_state_goes_through_the_accelerators_checkpoints(mark, tmp_path, owner):
    accelerator = Accelerator(cpu=True)
    net, loader = net_and_loader()
    with Watermarking(mark, net, loader, accelerator=accelerator, rate="auto", on_failure="stop") as marking:
        accelerator.register_for_checkpointing(marking)
        net(next(iter(loader))[0])
        marking.checkpoint()
        marking.verdicts.clear()
        state = marking.state_dict()
        assert state["rate"] == 90_000
        accelerator.save_state(tmp_path / "saved")
        marking.checkpoint()
        marking.verdicts.clear()
        assert marking.state_dict() != state
        accelerator.load_state(tmp_path / "saved")
    assert marking.state_dict() == state
    keys = [mark.subkeys.key(purpose) for purpose in ("input", "label", "schedule", "disclosure")] + [owner._roots[0]]
    for file in tmp_path.glob("saved/*"):
        assert not any(key in file.read_bytes() for key in keys)


class Stream(IterableDataset):
    def __iter__(self):
        data = load_digits()
        return iter(list(zip(torch.tensor(data.images / 16).float()[:, None], torch.tensor(data.target), strict=True)))


def test_a_stream_is_known_by_its_first_batch(mark):
    accelerator = Accelerator(cpu=True)
    net, _ = net_and_loader()
    net, loader = accelerator.prepare(net, DataLoader(Stream(), 64))
    with Watermarking(mark, net, loader, accelerator=accelerator) as marking:
        sizes = [len(net(x)) for x, _ in loader]
        assert sum(sizes) == 1797 + marking.board.injected
        assert marking.checkpoint().queries == 60
        marking.verdicts.clear()


def test_a_second_mark_on_the_prepared_loader_is_refused(mark, rival):
    accelerator = Accelerator(cpu=True)
    net, loader = net_and_loader()
    others = wmplug.create(rival, scheme="random-label", carriers=CARRIERS, classes=10, triggers=60)
    with Watermarking(mark, net, loader, accelerator=accelerator):
        prepared = accelerator.prepare(loader)
        with pytest.raises(InjectionError, match="active on this loader"):
            Watermarking(others, net_and_loader()[0], prepared, accelerator=accelerator).__enter__()
        net(next(iter(prepared))[0])


def test_another_number_of_classes_is_refused_before_training(mark):
    accelerator = Accelerator(cpu=True)
    _, loader = net_and_loader()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 7))
    net, loader = accelerator.prepare(net, loader)
    with pytest.raises(InputError, match="gives 7 scores an input, the watermark was made for 10 classes"):
        Watermarking(mark, net, loader, accelerator=accelerator).__enter__()
