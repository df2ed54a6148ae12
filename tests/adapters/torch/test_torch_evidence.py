import dataclasses
import shutil

import pytest
import torch
from torch.utils.data import DataLoader

from wmplug.adapters.torch import Watermarking
from wmplug.errors import EvidenceWarning, RegisterError
from wmplug.register import Register, assets
from wmplug.register.checking import check


@pytest.fixture
def entries(mark):
    """What was recorded since the test began."""
    before = len(list(Register(mark.register).entries()))
    return lambda: list(Register(mark.register).entries())[before:]


def test_a_loop_leaves_its_story(mark, make_net, loader, fit_net, entries, tmp_path):
    net = make_net()
    with Watermarking(mark, net, loader, rate=0.2, parameters={"lr": 3e-3}) as marking:
        fit_net(net, loader, 12, lambda epoch: marking.checkpoint(step=epoch, epoch=epoch))
    told = entries()
    kinds = [entry.type for entry in told]
    assert kinds[:4] == ["dataset.committed", "parameters.committed", "architecture.committed", "training.started"]
    assert kinds[4:7] == ["watermark.inserted", "system.committed", "training.checkpoint"]
    assert kinds[-2:] == ["system.committed", "training.finished"]
    assert told[0].body["count"] == len(loader.dataset)
    assert told[1].body["document"]["given"] == {"lr": 3e-3}
    total = sum(entry.body["triggers"] for entry in told if entry.type == "watermark.inserted")
    assert total == told[-1].body["triggers"] == marking.board.injected > 0
    verdicts = [entry.body["verdict"]["log10_p"] for entry in told if entry.type == "training.checkpoint"]
    assert verdicts == [verdict.log10_p for verdict in marking.verdicts]
    assert check(mark.register).ok


def test_what_was_finished_is_what_is_in_the_file(mark, make_net, loader, fit_net, entries, tmp_path):
    net = make_net()
    with Watermarking(mark, net, loader, rate=0.3) as marking:
        fit_net(net, loader, 3)
        torch.save(net.state_dict(), tmp_path / "net.pt")
        marking.checkpoint(path=tmp_path / "net.pt")
    written, live = [entry.body for entry in entries() if entry.type == "system.committed"]
    assert written["files"]["count"] == 1
    assert assets.compare_system(written, live) == "tensors"
    assert assets.compare_system(live, assets.system(make_net())) == "different"


def test_a_run_that_must_be_recorded_and_cannot_does_not_begin(mark, make_net, loader, tmp_path):
    lost = dataclasses.replace(mark, register=tmp_path / "nowhere")
    collate = loader.collate_fn
    with pytest.raises(RegisterError, match="require_evidence"):
        Watermarking(lost, make_net(), loader, require_evidence=True).__enter__()
    assert loader.collate_fn is collate
    with pytest.warns(EvidenceWarning, match="NOT EVIDENCED"):
        marking = Watermarking(lost, make_net(), loader).__enter__()
    marking._release()


def test_a_register_that_breaks_in_training_does_not_break_training(mark, make_net, loader, fit_net, tmp_path):
    copy = tmp_path / "register"
    shutil.copytree(mark.register, copy)
    own = dataclasses.replace(mark, register=copy)
    net = make_net()
    with Watermarking(own, net, loader, rate=0.3) as marking:
        fit_net(net, loader, 3)
        with (copy / "log.jsonl").open("ab") as log:
            log.write(b"garbage\n")
        with pytest.warns(EvidenceWarning, match="NOT EVIDENCED"):
            marking.checkpoint()
    assert marking.verdicts


def test_the_order_of_batches_is_the_same_with_and_without_a_register(mark, make_net, dataset, tmp_path):
    """Committing to the training set draws nothing from the generators that training uses."""
    seen = []
    for own in (mark, dataclasses.replace(mark, register=None)):
        torch.manual_seed(7)
        loader = DataLoader(dataset, 64, shuffle=True)
        net = make_net()
        torch.manual_seed(8)
        with Watermarking(own, net, loader, rate=0.2):
            net.train()
            batches = []
            for x, _ in loader:
                net(x)
                batches.append(x.sum().item())
        seen.append(batches)
    assert seen[0] == seen[1]
