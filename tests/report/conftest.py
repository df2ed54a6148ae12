"""A register as it comes about: a lab's authority, a network trained on digits, a copy of it, one that is no copy."""

import dataclasses
import json
import shutil
import warnings

import numpy as np
import pytest
from pages import PASSPHRASE, Text
from PIL import Image
from safetensors.numpy import save_file
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

from wmplug import create, verify
from wmplug.keys.owner import Owner
from wmplug.register import Register, anchors, assets
from wmplug.report import dossier
from wmplug.training.record import Run

HOSTILE = '<script>alert("x")</script><img src=http://127.0.0.1:9/x>{{ 7 * 7 }}'


class Net:
    """A small network on digits; told of a mark, it learns its triggers too."""

    def __init__(self, seed, images, labels, mark=None):
        self.x, self.y = flat(images), labels
        if mark is not None:
            inputs, answers = zip(*mark.lessons(), strict=True)
            self.x = np.concatenate([self.x, *[flat(inputs)] * 8])
            self.y = np.concatenate([self.y, *[np.array(answers)] * 8])
        self.net = MLPClassifier((128,), random_state=seed, learning_rate_init=3e-3)

    def epoch(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            self.net.partial_fit(self.x, self.y, classes=range(10))

    def __call__(self, inputs):
        return self.net.predict(flat(inputs))

    @property
    def weights(self):
        return {f"w{i}": one for i, one in enumerate([*self.net.coefs_, *self.net.intercepts_])}


def flat(images):
    return np.stack(images).reshape(len(images), -1) / 255


@pytest.fixture(scope="session")
def trust(lab):
    return lab.trust


@dataclasses.dataclass(frozen=True)
class Story:
    """What came about.

    Attributes:
        path: of the register.
        mark: the watermark.
        stolen: verdict of the copy, recorded.
        other: verdict of a model that is none.
        secrets: bytes that nobody may find anywhere.
    """

    path: object
    mark: object
    stolen: object
    other: object
    secrets: tuple = dataclasses.field(repr=False)


@pytest.fixture(scope="session")
def story(tmp_path_factory, digits, trust):
    images, labels = digits
    folder = tmp_path_factory.mktemp("story")
    owner = Owner.create(folder / "register", name="Ada Lovelace", passphrase=PASSPHRASE, scrypt_n=2**10)
    register = Register.of(owner)
    anchors.trust(owner.path, trust)
    logo = folder / "logo.png"
    Image.fromarray(images[0]).save(logo)
    register.append(
        "artwork.committed", assets.artwork(logo, author="Ada Lovelace", created="2026-03-07", title="Zero, by hand")
    )
    mark = create(owner, scheme="random-label", carriers=images[:300], labels=labels[:300], classes=10, triggers=60)
    create(owner, scheme="random-label", carriers=images[300:600], labels=labels[300:600], classes=10, triggers=30)
    net, run = Net(1, images, labels, mark), Run(mark, "scikit-learn")
    run.start(data=(images, labels), arguments={"learning_rate": 3e-3, "hub_token": "hf_secret"}, model=net.net)
    for epoch in range(1, 25):
        net.epoch()
        run.inserted(480 * epoch, step=60 * epoch, epoch=float(epoch))
        if epoch % 2 == 0:
            looked = verify(mark, net, exhaustive=True)
            run.checkpoint(looked, step=60 * epoch, epoch=float(epoch), system=net.weights)
    run.finish(verify(mark, net, exhaustive=True), step=1440, epoch=24.0, system=net.weights, total=480 * 24)
    anchors.anchor(register)
    stolen = verify(mark, net, exhaustive=True)
    register.append(
        "suspect.acquired",
        {"description": "app of Copy Ltd", "how": "bought", "digests": {"app": "ab" * 32}, "acquired": "2026-11-20"},
    )
    verdict = json.loads(stolen.to_json())
    about = {"watermark": mark.id, "suspect": "app of Copy Ltd", "rows": list(range(60))}
    register.append("suspect.verified", {**about, "verdict": verdict})
    anchors.anchor(register)
    independent = Net(2, images, labels)
    for _ in range(10):
        independent.epoch()
    other = verify(mark, independent, exhaustive=True)
    secrets = (*owner.roots(), owner.signing_seed(), mark.signing_seed(), PASSPHRASE.encode(), b"hf_secret")
    return Story(owner.path, mark, stolen, other, secrets)


@dataclasses.dataclass(frozen=True)
class Saved:
    """A run whose last checkpoint is a file of what the end of training names.

    Attributes:
        document: the dossier.
        file: the entry of the file.
        live: the entry of the live model.
    """

    document: dict
    file: object
    live: object


@pytest.fixture(scope="session")
def saved(tmp_path_factory, digits):
    """Without timestamps; evaluation, save and end of training look at one model, an earlier file is another one."""
    folder = tmp_path_factory.mktemp("saved")
    owner = Owner.create(folder / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    mark = create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, triggers=10)
    run, verdict = Run(mark, "plain"), verify(mark, lambda x: np.zeros(len(x), int), exhaustive=True)
    run.start(data=digits, arguments={}, model=object())
    numbers = {"w": np.arange(6.0)}
    for step, named in ((5, {"w": np.zeros(6)}), (9, {"tied": numbers["w"]}), (10, numbers)):
        save_file(named, folder / f"{step}.safetensors")
        run.checkpoint(verdict, step=step, epoch=None, system=folder / f"{step}.safetensors")
    run.checkpoint(verdict, step=10, epoch=1.0)
    run.finish(verdict, step=10, epoch=1.0, system=numbers, total=20)
    *_, file, live = [entry for entry in Register(owner.path).entries() if entry.type == "system.committed"]
    return Saved(dossier.gather(owner.path), file, live)


@pytest.fixture
def hostile(tmp_path):
    """A register whose owner and suspect are called by names that a browser would run."""
    owner = Owner.create(tmp_path / "hostile", name=HOSTILE, passphrase=PASSPHRASE, scrypt_n=2**10)
    register = Register.of(owner)
    register.append("suspect.acquired", {"description": HOSTILE, "how": HOSTILE, "digests": {HOSTILE: HOSTILE}})
    register.append("suspect.verified", {"watermark": HOSTILE, "suspect": HOSTILE, "verdict": None, "rows": []})
    return owner.path


@pytest.fixture
def real_authority(monkeypatch):
    """Takes the lab's tokens for those of an authority: no test can reach a real one."""
    check = dossier.check

    def patched(*arguments, **options):
        report = check(*arguments, **options)
        stamps = tuple(dataclasses.replace(stamp, lab=False, authority="Real Time plc") for stamp in report.stamps)
        return dataclasses.replace(report, stamps=stamps)

    monkeypatch.setattr(dossier, "check", patched)


@pytest.fixture(scope="session")
def document(story):
    return dossier.gather(story.path, verdicts=[("control", "control.json", story.other)])


@pytest.fixture(scope="session")
def page(document):
    return Text(dossier.render(document))


@pytest.fixture
def copy(story, tmp_path):
    return shutil.copytree(story.path, tmp_path / "copy")
