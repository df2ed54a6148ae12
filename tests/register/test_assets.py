"""Training parameters, architecture and artwork: what is committed, and what leaves no trace."""

import argparse
import enum
import hashlib
import json
import math
import os
import subprocess
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from datetime import date, datetime, timezone
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from wmplug.errors import InputError
from wmplug.register.assets import architecture, artwork, encoding, parameters
from wmplug.register.assets.architecture import git_commit

# Training parameters


class Kind(enum.Enum):
    STEPS = "steps"


@dataclass
class Settings:
    rate: float = 1e-3
    hub_token: str | None = "hunter2"
    kind: Kind = Kind.STEPS
    nested: dict = field(default_factory=lambda: {"api_key": "hunter2", "max_new_tokens": 20})


class Optimizer:
    """As torch's are."""

    def __init__(self):
        self.defaults = {"lr": 0.1, "betas": (0.9, 0.99)}
        self.param_groups = [{"params": [np.zeros(3), np.zeros(2)], "lr": 0.05}]


class Config(MutableMapping):
    """As OmegaConf's are: a mapping that is no dict."""

    def __init__(self, values):
        self.values_ = values

    def __getitem__(self, key):
        return self.values_[key]

    def __iter__(self):
        return iter(self.values_)

    def __len__(self):
        return len(self.values_)

    def __setitem__(self, key, value):
        raise NotImplementedError

    __delitem__ = __setitem__


def test_a_dataclass_is_committed_without_its_secrets():
    body = parameters(Settings())
    assert body["document"] == {
        "rate": 1e-3,
        "hub_token": "removed",
        "kind": "steps",
        "nested": {"api_key": "removed", "max_new_tokens": 20},
    }
    assert body["removed"] == ["hub_token", "nested.api_key"]
    assert body["sha256"] == hashlib.sha256(rfc8785.dumps(body["document"])).hexdigest()
    assert parameters(Settings(hub_token="other"))["sha256"] == body["sha256"]
    assert parameters(Settings(rate=2e-3))["sha256"] != body["sha256"]


@pytest.mark.parametrize(
    "name",
    ["token", "hub_token", "HF_TOKEN", "hubToken", "password", "db_passwd", "my_secret", "wandb_api_key", "apiKey",
     "key",     "aws_access_key_id", "token_2",
     "credentials", "private_key_file", "Authorization"],
)  # fmt: skip
def test_a_key_that_looks_like_a_secrets_is_removed(name):
    body = parameters({"outer": [{name: "hunter2"}]})
    assert body["removed"] == [f"outer[0].{name}"]
    assert "hunter2" not in json.dumps(body)


@pytest.mark.parametrize(
    "text",
    ["https://me:hunter2@host/repo", "hf_abcdefghijklmnopqrstuvwxyzhunter2", "--api-key=hunter2", "PASSWORD: hunter2"],
)
def test_a_secret_in_a_text_is_removed(text):
    body = parameters({"report_to": ["none", text]})
    assert body["document"] == {"report_to": ["none", "removed"]}
    assert body["removed"] == ["report_to[1]"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_new_tokens", 20), ("include_num_input_tokens_seen", False), ("pad_token_id", 0),
     ("include_num_input_tokens_seen", "no"), ("tokenizer", "bert"),
     ("key_dim", 64), ("hub_token", None), ("keyboard", "de"), ("url", "https://host:8080/a@b")],
)  # fmt: skip
def test_a_hyperparameter_is_kept(name, value):
    body = parameters({name: value})
    assert (body["document"], body["removed"]) == ({name: value}, [])


def test_what_json_cannot_hold_is_tagged():
    values = {
        "nan": math.nan, "low": -math.inf, "big": 2**60, "numpy": np.float32(0.5), "path": PurePosixPath("a/b"),
        "set": {"b", "a"}, "day": date(2026, 3, 7), "object": Optimizer, "array": np.zeros(2, "f4"),
        "raw": b"ab", 3: "three",
    }  # fmt: skip
    document = parameters(values)["document"]
    assert document["nan"] == {"float": "nan"}
    assert document["low"] == {"float": "-inf"}
    assert document["big"] == {"int": str(2**60)}
    assert (document["numpy"], document["path"], document["set"], document["3"]) == (0.5, "a/b", ["a", "b"], "three")
    assert document["day"] == "2026-03-07"
    assert document["object"]["repr"].endswith("Optimizer")
    assert document["array"]["sha256"] == encoding.read_record(np.zeros(2, "f4")).digest.hex()
    assert document["raw"]["schema"] == "bytes"


VALUES = st.none() | st.floats() | st.integers() | st.text(max_size=4)


@given(st.dictionaries(st.text(max_size=4), st.recursive(VALUES, st.lists, max_leaves=4), max_size=4))
@settings(deadline=None)
def test_any_configuration_has_a_canonical_form(values):
    body = parameters(values)
    assert rfc8785.dumps(json.loads(json.dumps(body))) == rfc8785.dumps(body)


def test_arguments_of_every_kind():
    plain = {"rate": 0.5, "epochs": 3}
    for arguments in (argparse.Namespace(**plain), Config(plain), plain):
        assert parameters(arguments)["document"] == plain
    document = parameters(Optimizer())["document"]
    assert document["defaults"] == {"lr": 0.1, "betas": [0.9, 0.99]}
    assert document["param_groups"] == [{"lr": 0.05, "tensors": 2}]
    assert parameters({"optimizer": Optimizer()})["document"]["optimizer"] == document
    assert parameters({1: "a", "1": "b"})["document"] == {"int:1": "a", "1": "b"}


def test_what_holds_no_settings_is_refused():
    with pytest.raises(InputError, match="give the framework's arguments object"):
        parameters(object())
    endless = {}
    endless["self"] = endless
    with pytest.raises(InputError, match="contains itself"):
        parameters(endless)


# Architecture


def git(folder, *command):
    environment = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    identity = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    done = subprocess.run(["git", *identity, *command], cwd=folder, env=environment, check=True, capture_output=True)
    return done.stdout.decode().strip()


def test_the_commit_of_the_working_folder(tmp_path, monkeypatch):
    assert git_commit(tmp_path) is None
    git(tmp_path, "init", "-q")
    assert git_commit(tmp_path) is None, "a repository without a commit"
    (tmp_path / "train.py").write_text("1")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-q", "-m", "first")
    clean = {"commit": git(tmp_path, "rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "output.bin").write_text("not tracked")
    monkeypatch.chdir(tmp_path)
    assert architecture(object())["git"] == clean
    (tmp_path / "train.py").write_text("2")
    assert git_commit(tmp_path) == {**clean, "dirty": True}


def test_a_missing_git_stops_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_commit(tmp_path) is None


class Configured:
    """As a model of Transformers is."""

    def __init__(self, **values):
        self.config = argparse.Namespace(to_dict=lambda: values)


def test_a_configuration_without_where_it_came_from():
    one = architecture(Configured(width=3, _name_or_path="/home/me/a", transformers_version="4.46"))
    other = architecture(Configured(width=3, _name_or_path="/home/me/b", transformers_version="5.0"))
    assert (one["form"], one["document"]) == ("config", {"width": 3})
    assert one["sha256"] == other["sha256"] != architecture(Configured(width=4))["sha256"]
    assert one["code"] == {
        "file": Path(__file__).name,
        "sha256": hashlib.sha256(Path(__file__).read_bytes()).hexdigest(),
    }
    assert architecture(Configured(text="x" * 70_000))["document"] is None
    assert json.loads(json.dumps(one)) == one


# Artwork


def test_a_picture_with_its_author_and_date(tmp_path):
    file = tmp_path / "logo.dat"
    Image.new("RGB", (8, 4)).save(file, "PNG")
    body = artwork(file, author="Ada", created=date(2026, 3, 7), licence="CC-BY-4.0", title="Mark")
    assert body == {
        "kind": "artwork",
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "bytes": file.stat().st_size,
        "media_type": "image/png",
        "pixels": [8, 4],
        "title": "Mark",
        "author": "Ada",
        "created": "2026-03-07",
        "licence": "CC-BY-4.0",
    }
    assert artwork(file.read_bytes())["media_type"] == "image/png"


@pytest.mark.parametrize(
    ("data", "media_type"),
    [(b"a poem", "text/plain"), (b"%PDF-1.7", "application/pdf"), (b"\xff\0", "application/octet-stream"),
     (b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav")],
)  # fmt: skip
def test_media_types(data, media_type):
    assert artwork(data)["media_type"] == media_type


def test_a_name_tells_where_the_content_does_not(tmp_path):
    (tmp_path / "a.svg").write_text("<svg/>")
    assert artwork(tmp_path / "a.svg")["media_type"] == "image/svg+xml"


@pytest.mark.parametrize(
    "created", ["2026", "2026-03", "2026-03-07", "2026-03-07T10:00:00Z", "2026-03-07T10:00:00+01:00"]
)
def test_dates_that_are(created):
    assert artwork(b"a", created=created)["created"] == created


@pytest.mark.parametrize(
    ("created", "message"),
    [("7.3.2026", "not an ISO 8601"), ("2026-02-30", "not an ISO 8601"), ("2026-13", "not an ISO "
        "8601"), ("", "not an ISO 8601"),
     ("9998", "in the future"), (datetime(9998, 1, 1, tzinfo=timezone.utc), "in the future")],
)  # fmt: skip
def test_dates_that_are_none(created, message):
    with pytest.raises(InputError, match=message):
        artwork(b"a", created=created)


def test_artwork_that_is_not_there():
    with pytest.raises(InputError, match="cannot be read"):
        artwork("/there/is/none")
    with pytest.raises(InputError, match="empty"):
        artwork(b"")
