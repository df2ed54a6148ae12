"""Commitments to torch's own objects: datasets, optimizers, modules, files."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from wmplug.errors import InputError
from wmplug.register.assets import architecture, compare_system, dataset, encoding, parameters, system


def test_a_tensor_dataset_is_its_arrays_and_a_loader_its_dataset():
    x, y = torch.arange(12.0).reshape(4, 3), torch.arange(4)
    whole = dataset(TensorDataset(x, y))
    assert whole["root"] == dataset((x.numpy(), y.numpy()))["root"]
    assert whole["root"] == dataset((x, y))["root"]
    before = torch.get_rng_state()
    assert dataset(DataLoader(TensorDataset(x, y), batch_size=2, shuffle=True)) == whole
    assert torch.equal(torch.get_rng_state(), before)
    assert dataset(Subset(TensorDataset(x, y), [2, 0]))["root"] == dataset((x[[0, 2]], y[[0, 2]]))["root"]


@pytest.mark.parametrize(
    "dtype", [torch.bool, torch.uint8, torch.int64, torch.float16, torch.float32, torch.complex64], ids=str
)
@pytest.mark.parametrize("shape", [(), (0, 2), (3, 2)], ids=str)
def test_a_tensor_has_the_encoding_of_its_array(dtype, shape):
    tensor = torch.ones(shape).to(dtype)
    assert encoding.encode(tensor) == encoding.encode(tensor.numpy())


class Own(torch.Tensor):
    pass


@pytest.mark.parametrize("kind", [torch.Tensor, Own])
def test_an_own_copy_of_a_tensor_is_a_plain_one(kind):
    tensor = torch.randn(3, 4, requires_grad=True).as_subclass(kind)
    copy = encoding.own(tensor)
    assert type(copy) is torch.Tensor
    assert encoding.encode(copy) == (before := encoding.encode(tensor))
    with torch.no_grad():
        tensor[0] = 0
    assert encoding.encode(copy) == before


def test_a_tensors_layout_in_memory_does_not_matter():
    tensor = torch.randn(3, 4, dtype=torch.complex64, requires_grad=True)
    turned = tensor.t().conj()
    assert encoding.encode(turned) == encoding.encode(np.ascontiguousarray(tensor.detach().numpy().T.conj()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_types_that_numpy_lacks_are_told_by_their_bytes(dtype):
    tensor = torch.tensor([1.0, -2.0]).to(dtype)
    array = encoding.read_array(tensor)
    assert (array.dtype, array.shape) == (str(dtype).removeprefix("torch."), (2,))
    assert bytes(array.data) == tensor.view(torch.uint8).numpy().tobytes()
    assert encoding.encode(tensor) != encoding.encode(tensor.view(torch.uint8 if dtype.itemsize == 1 else torch.int16))


@pytest.mark.parametrize("tensor", [torch.zeros(2, device="meta"), torch.eye(2).to_sparse()], ids=["meta", "sparse"])
def test_a_tensor_without_its_bytes_is_refused(tensor):
    with pytest.raises(InputError, match="give dense tensors"):
        system({"a": tensor})


class Augmented(Dataset):
    def __init__(self, dataset):
        self.dataset = dataset

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        pixels, label = self.dataset[index]
        return pixels + torch.randn(3) + np.random.randn() + random.random(), label


def test_augmentation_is_found_out_and_changes_nothing_of_what_training_draws():
    raw = TensorDataset(torch.zeros(20, 3), torch.arange(20))
    torch.manual_seed(3)
    expected = torch.randn(4)
    torch.manual_seed(3)
    body = dataset(DataLoader(Augmented(raw), batch_size=4))
    assert torch.equal(torch.randn(4), expected)
    assert body["status"] == "not-deterministic"
    assert body["instead"]["root"] == dataset(raw)["root"]


def test_an_optimizer_without_its_tensors():
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW([{"params": [model.weight], "lr": 0.5}, {"params": [model.bias]}], lr=1e-3)
    body = parameters(optimizer)
    assert body["document"]["class"] == "torch.optim.adamw.AdamW"
    assert [group["lr"] for group in body["document"]["param_groups"]] == [0.5, 1e-3]
    assert [group["tensors"] for group in body["document"]["param_groups"]] == [1, 1]
    assert parameters({"dtype": torch.float16})["document"] == {"dtype": {"repr": "torch.float16"}}
    assert parameters({"weight": torch.ones(2)}) == parameters({"weight": np.ones(2, "f4")})


def network(width=4):
    return torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.BatchNorm1d(width), torch.nn.Linear(width, 2))


def test_a_module_is_its_tree():
    body = architecture(network())
    assert (body["form"], body["parameters"]) == ("modules", 34)
    first = body["document"][1]
    assert (first["name"], first["class"]) == ("0", "torch.nn.modules.linear.Linear")
    assert first["text"] == "Linear(in_features=3, out_features=4, bias=True)"
    assert first["parameters"][0] == {"name": "weight", "dtype": "float32", "shape": [4, 3]}
    assert body["document"][2]["buffers"][0]["name"] == "running_mean"
    assert architecture(network())["sha256"] == body["sha256"] != architecture(network(5))["sha256"]
    assert architecture(torch.compile(network(), backend="eager"))["sha256"] == body["sha256"]
    assert architecture(torch.nn.DataParallel(network()))["sha256"] == body["sha256"]
    assert body["code"]["file"] == "container.py"


def test_an_address_in_a_modules_text_is_no_part_of_it():
    class Calls(torch.nn.Module):
        def extra_repr(self):
            return repr(object())

    assert architecture(Calls())["document"] == architecture(Calls())["document"]


def test_a_lazy_module_has_no_shapes_yet():
    body = architecture(torch.nn.LazyLinear(2))
    assert body["parameters"] is None
    assert body["document"][0]["parameters"][0]["shape"] is None


def test_every_format_of_one_model_has_the_same_tensors(tmp_path):
    model = network()
    live = system(model)
    state = model.state_dict()
    torch.save(state, tmp_path / "a.pt")
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "b.pth")
    np.savez(tmp_path / "c.npz", **{name: tensor.numpy() for name, tensor in state.items()})
    for name in ("a.pt", "b.pth", "c.npz"):
        assert compare_system(live, system(tmp_path / name)) == "tensors"
    assert compare_system(live, system({name: tensor.half() for name, tensor in state.items()})) == "different"
    with torch.no_grad():
        model[0].bias.view(torch.int32)[0] ^= 1
    assert compare_system(live, system(model)) == "different"


def test_each_name_of_a_tied_tensor_counts():
    model = network()
    state = model.state_dict()
    tied = system({**state, "again": state["0.weight"]})
    assert tied["tensors"]["count"] == len(state) + 1
    assert compare_system(system(model), tied) == "different"
    assert tied["tensors"]["contents"] == system(model)["tensors"]["contents"]


class Evil:
    def __reduce__(self):
        return random.seed, ("executed",)


def test_nothing_in_a_pickle_is_executed(tmp_path):
    torch.save({"a": torch.zeros(2), "evil": Evil()}, tmp_path / "a.pt")
    before = random.getstate()
    body = system(tmp_path / "a.pt")
    assert random.getstate() == before
    assert body["tensors"] is None
    assert body["files"]["count"] == 1


def test_a_tensor_dataset_is_read_fast_and_to_the_same_root():
    class Slow:
        def __init__(self, inner):
            self.inner = inner

        def __len__(self):
            return len(self.inner)

        def __getitem__(self, index):
            return self.inner[index]

    fast = TensorDataset(torch.arange(60.0).reshape(10, 2, 3), torch.arange(10), torch.ones(10, dtype=torch.bool))
    read, slow = dataset(fast), dataset(Slow(fast))
    assert {**read, "class": None} == {**slow, "class": None}
    assert dataset(TensorDataset(torch.ones(3, dtype=torch.bfloat16)))["count"] == 3
