"""Loader processes, and what they and files are given."""

import multiprocessing.popen_spawn_posix
import multiprocessing.reduction
import pickle

import numpy as np
import torch
from steps import secrets, take_a_step
from torch.utils.data import DataLoader, TensorDataset

from wmplug.adapters.torch import Watermarking, inject


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
