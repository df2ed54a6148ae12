"""The finished system: what is committed."""

import hashlib
import json

import numpy as np
import pytest

from wmplug.errors import InputError
from wmplug.keys import merkle
from wmplug.register.assets import compare_system, encoding, system


def safetensors(tensors, metadata=None):
    """The bytes of a safetensors file, by its specification."""
    names = {"float32": "F32", "float64": "F64", "int64": "I64", "bool": "BOOL", "uint8": "U8"}
    header, body = ({"__metadata__": metadata} if metadata else {}), b""
    for name, array in tensors.items():
        end = len(body) + array.nbytes
        header[name] = {"dtype": names[array.dtype.name], "shape": array.shape, "data_offsets": [len(body), end]}
        body += array.tobytes()
    line = json.dumps(header).encode()
    return len(line).to_bytes(8, "little") + line + body


@pytest.fixture
def state():
    rng = np.random.default_rng(0)
    return {
        "body.weight": rng.normal(size=(4, 3)).astype("f4"),
        "body.bias": rng.normal(size=4).astype("f4"),
        "steps": np.array(7),
        "mask": np.array([True, False]),
        "empty": np.zeros((0, 2)),
    }


def by_hand(state):
    """The tensor digest as its docstring defines it."""

    def u64(number):
        return number.to_bytes(8, "little")

    text = b"wmplug/tensors/1\0" + u64(len(state))
    for name in sorted(state, key=str.encode):
        array, dtype = state[name], state[name].dtype.name.encode()
        text += u64(len(name.encode())) + name.encode() + u64(len(dtype)) + dtype
        text += u64(array.ndim) + b"".join(map(u64, array.shape)) + u64(array.nbytes) + array.tobytes()
    return hashlib.sha256(text).hexdigest()


def tensors(target):
    return system(target)["tensors"]["sha256"]


def test_a_reformatted_system_has_the_same_tensors(state, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(safetensors(state, {"format": "pt"}))
    (tmp_path / "b.safetensors").write_bytes(safetensors(dict(reversed(state.items()))))
    np.savez(tmp_path / "c.npz", **state)
    bodies = [system(tmp_path / name) for name in ("a.safetensors", "b.safetensors", "c.npz")] + [system(state)]
    assert {body["tensors"]["sha256"] for body in bodies} == {by_hand(state)}
    assert {compare_system(bodies[0], body) for body in bodies[1:]} == {"tensors"}
    assert compare_system(bodies[0], bodies[0]) == "files"
    measured = bodies[0]["tensors"]
    assert (measured["count"], measured["elements"]) == (5, 19)
    assert measured["bytes"] == sum(array.nbytes for array in state.values())
    assert json.loads(json.dumps(bodies)) == bodies


def test_every_flipped_bit_of_a_tensor_is_seen(state):
    before = system(state)
    raw = state["body.bias"].view(np.uint8)
    for position in range(raw.size * 8):
        raw[position // 8] ^= 1 << position % 8
        assert compare_system(before, system(state)) == "different"
        raw[position // 8] ^= 1 << position % 8
    assert compare_system(before, {**system(state), "files": None}) == "tensors"


def test_a_cast_a_new_shape_and_another_name_are_seen(state):
    before, contents = system(state), system(state)["tensors"]["contents"]
    bias = state.pop("body.bias")
    for other in (bias.astype("f8"), bias.view("i4"), bias.reshape(2, 2)):
        after = system({**state, "body.bias": other})
        assert compare_system(before, after) == "different"
        assert after["tensors"]["contents"] != contents
    for renamed in ({**state, "body.offset": bias}, {**state, "body.bias": bias, "tied": bias}):
        after = system(renamed)
        assert compare_system(before, after) == "different"
        assert after["tensors"]["contents"] == contents


def test_a_folder_is_its_files_and_the_tensors_of_its_shards(state, tmp_path):
    names = list(state)
    (tmp_path / "config.json").write_text("{}")
    for shard in range(2):
        part = {name: state[name] for name in names[shard::2]}
        (tmp_path / f"model-0000{shard}.safetensors").write_bytes(safetensors(part))
    body = system(tmp_path)
    assert body["tensors"]["sha256"] == by_hand(state)
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    assert body["files"]["digests"] == digests
    leaves = [merkle.leaf_hash(encoding.encode([n.encode(), bytes.fromhex(digests[n])])) for n in sorted(digests)]
    assert body["files"]["root"] == merkle.root(leaves).hex()
    (tmp_path / "config.json").write_text("{ }")
    assert compare_system(body, system(tmp_path)) == "tensors"
    (tmp_path / "more").mkdir()
    (tmp_path / "config.json").rename(tmp_path / "more" / "config.json")
    assert "more/config.json" in system(tmp_path)["files"]["digests"]
    (tmp_path / "copy.safetensors").write_bytes((tmp_path / "model-00000.safetensors").read_bytes())
    assert system(tmp_path)["tensors"] is None
    assert "of another file again" in system(tmp_path)["unreadable"]


def test_the_name_of_a_single_file_does_not_matter(state, tmp_path):
    np.savez(tmp_path / "a.npz", **state)
    before = system(tmp_path / "a.npz")
    (tmp_path / "a.npz").rename(tmp_path / "b.bak")
    after = system(tmp_path / "b.bak")
    assert compare_system(before, after) == "files"
    assert after["tensors"] is None
    assert ".bak" in after["unreadable"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff" * 8,
        b"\xff" * 20,
        b"\x02\0\0\0\0\0\0\0[]",
        safetensors({"a": np.zeros(4)})[:-1],
        safetensors({"a": np.zeros(4)}).replace(b"[4]", b"[3]"),
        safetensors({"a": np.zeros(1), "b": np.zeros(1)}).replace(b'"b"', b'"a"'),
        safetensors({"a": np.zeros(1)}).replace(b"[0, 8]", b"[8, 0]"),
    ],
)
def test_a_damaged_file_is_committed_as_a_file_only(content, tmp_path):
    (tmp_path / "a.safetensors").write_bytes(content)
    body = system(tmp_path)
    assert body["files"]["count"] == 1
    assert body["tensors"] is None
    assert "while the tensors were read" in body["unreadable"]


@pytest.mark.parametrize("target", ["/there/is/none", 7, {}, {"a": "no tensor"}])
def test_what_is_no_system_is_refused(target):
    with pytest.raises(InputError):
        system(target)


def test_an_empty_folder_is_no_system(tmp_path):
    with pytest.raises(InputError, match="holds no files"):
        system(tmp_path)
