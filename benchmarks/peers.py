"""wmplug beside an installable peer, WatermarkNN of PyPI's amuletml, on the same split, model and triggers.

python -m venv peers && peers/bin/pip install -c constraints.txt '.[torch]' amuletml
peers/bin/python benchmarks/peers.py --data /usr/share/datasets/fashion-mnist --seeds 3

Both follow Adi et al. 2018. The peer reads its triggers from a folder of pictures that its user draws; here it gets
wmplug's pictures with labels from NumPy's generator, so that only the training differs.
"""

import argparse
import copy
import inspect
import tempfile
from pathlib import Path

import fashion
import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import wmplug
from wmplug.adapters.torch import Watermarking

# torchvision's wheel names these operators at import; beside a CPU torch nothing defines them.
for operator in ("nms", "qnms"):
    torch.library.define(f"torchvision::{operator}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
from amulet.unauth_model_ownership.defenses import WatermarkNN


class GivenTriggers(WatermarkNN):
    """The peer, with its triggers from memory instead of a folder."""

    def get_wm_loader(self, shape: int, wm_path: str, gray: bool, tabular: bool) -> DataLoader:
        """Pictures and labels saved by `peer`."""
        return DataLoader(TensorDataset(*torch.load(wm_path)), self.batch_size, shuffle=True)


def with_wmplug(model: nn.Module, batches: DataLoader, mark: wmplug.Watermark, epochs: int) -> str:
    with Watermarking(mark, model, batches):
        fashion.fit(model, batches, epochs)
    return "wmplug"


def with_peer(model: nn.Module, batches: DataLoader, triggers: str, epochs: int) -> WatermarkNN:
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    loss = nn.CrossEntropyLoss()
    peer = GivenTriggers(model, loss, optimizer, batches, "cpu", triggers, epochs=epochs, batch_size=4)
    peer.watermark()
    return peer


def lines(function: object) -> int:
    return len(inspect.getsource(function).splitlines()) - 2


def accuracy(model: nn.Module, data: fashion.Fashion) -> float:
    x, y = fashion.tensors(data.test)
    with torch.no_grad():
        return 100 * float((torch.cat([model.eval()(part).argmax(1) for part in x.split(1000)]) == y).float().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    data = fashion.read(options.data, 20_000)
    print(f"lines in the training script: wmplug {lines(with_wmplug)}, peer {lines(with_peer)}")
    for seed in range(options.seeds):
        owner = wmplug.Owner.create(Path(tempfile.mkdtemp()) / "r", name="a", passphrase="benchmark", scrypt_n=2**10)
        mark = wmplug.create(owner, scheme="random-label", carriers=data.own[0], classes=10, preprocess=fashion.prepare)
        models = {}
        for who in ("twin", "wmplug", "peer"):
            torch.manual_seed(seed)
            model, batches = fashion.network(), fashion.loader(data.own, seed)
            if who == "wmplug":
                with_wmplug(model, batches, mark, options.epochs)
            elif who == "peer":
                pictures = torch.stack([fashion.prepare(x, 0)[0] for x, _ in mark.lessons()])
                labels = torch.as_tensor(np.random.default_rng(seed).integers(10, size=len(pictures)))
                path = Path(tempfile.mkdtemp()) / "triggers.pt"
                torch.save((pictures, labels), path)
                peer = with_peer(model, batches, str(path), options.epochs)
            else:
                fashion.fit(model, batches, options.epochs)
            models[who] = model.eval()
        for who in ("wmplug", "peer"):
            tuned = fashion.fit(copy.deepcopy(models[who]), fashion.loader(data.other, seed + 100), 10)
            cost = accuracy(models[who], data) - accuracy(models["twin"], data)
            print(f"seed {seed}, {who}: accuracy {cost:+.2f} points")
            for what, model in {"own": models[who], "fine-tuned": tuned, "unmarked": models["twin"]}.items():
                said = wmplug.verify(mark, model, exhaustive=True) if who == "wmplug" else peer.verify(model)
                print(f"    {what:11s} {said}", flush=True)


if __name__ == "__main__":
    main()
