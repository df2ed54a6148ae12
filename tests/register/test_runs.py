import numpy as np
import pytest

from wmplug import create, verify
from wmplug.errors import EvidenceWarning, RegisterError
from wmplug.keys.owner import Owner
from wmplug.register import Register
from wmplug.register.checking import check
from wmplug.training.record import Run, weights_of

PASSPHRASE = "correct horse battery staple"


@pytest.fixture
def mark(tmp_path, digits):
    owner = Owner.create(tmp_path / "register", name="Ada", passphrase=PASSPHRASE, scrypt_n=2**10)
    return create(owner, scheme="random-label", carriers=digits[0][:300], classes=10, triggers=20)


def told(mark):
    return [entry for entry in Register(mark.register).entries() if "run" in entry.body]


def weights():
    return {"w": np.arange(6, dtype=np.float32)}


def test_a_run_tells_its_story_in_order(mark, digits):
    run = Run(mark, "plain")
    run.start(data=(digits[0], digits[1]), arguments={"lr": 0.1, "token": "hf_secret"}, model=object())
    run.inserted(7, step=10, epoch=1.0)
    verdict = verify(mark, lambda x: np.zeros(len(x), int), exhaustive=True)
    run.checkpoint(verdict, step=10, epoch=1.0, system=weights())
    run.inserted(7, step=11, epoch=1.1)
    run.finish(verdict, step=20, epoch=2.0, system=weights(), total=15)
    entries = told(mark)
    assert [entry.type for entry in entries] == [
        *("dataset.committed", "parameters.committed", "architecture.committed", "training.started"),
        *("watermark.inserted", "system.committed", "training.checkpoint"),
        *("watermark.inserted", "system.committed", "training.finished"),
    ]
    dataset, parameters, _, started, inserted, system, checkpoint, last, _, finished = entries
    assert dataset.body["count"] == len(digits[0])
    assert "hf_secret" not in str(parameters.body)
    assert started.body["dataset"] == dataset.seq
    assert [inserted.body["triggers"], last.body["triggers"], finished.body["triggers"]] == [7, 8, 15]
    assert checkpoint.body["system"] == system.seq
    assert checkpoint.body["verdict"]["state"] == "inconclusive"
    assert {entry.body["run"] for entry in entries} == {run.id}
    report = check(mark.register)
    assert report.ok
    assert report.attested == 0


def test_a_stream_is_not_read(mark):
    stream = iter([1, 2, 3])
    Run(mark, "plain").start(data=stream, arguments={}, model=object())
    assert next(stream) == 1
    assert told(mark)[0].body["status"] == "stream"


def test_what_cannot_be_read_is_said_and_the_run_goes_on(mark):
    class Broken:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise OSError("the disk is gone")

    run = Run(mark, "plain")
    with pytest.warns(EvidenceWarning, match=r"dataset cannot be read .*the disk is gone"):
        run.start(data=Broken(), arguments={}, model=object())
    assert told(mark)[-1].type == "training.started"
    assert told(mark)[-1].body["dataset"] is None
    with pytest.raises(RegisterError, match="the disk is gone"):
        Run(mark, "plain", require=True).start(data=Broken(), arguments={}, model=object())


def test_a_register_that_is_gone_is_said_once_and_loudly(mark):
    mark.register.rename(mark.register.with_name("elsewhere"))
    with pytest.warns(EvidenceWarning, match="NOT EVIDENCED"):
        run = Run(mark, "plain")
    run.start(data=[1], arguments={}, model=object())
    run.finish(None, step=1, epoch=1.0, system=None, total=1)
    with pytest.raises(RegisterError, match="require_evidence"):
        Run(mark, "plain", require=True)


def test_a_log_that_is_damaged_stops_the_record_not_the_run(mark):
    with (mark.register / "log.jsonl").open("ab") as log:
        log.write(b"garbage\n")
    run = Run(mark, "plain")
    with pytest.warns(EvidenceWarning, match="NOT EVIDENCED.*Nothing is appended"):
        run.start(data=[1], arguments={}, model=object())
    run.inserted(3, step=1, epoch=1.0)
    with pytest.raises(RegisterError, match="does not hold"):
        Run(mark, "plain", require=True)


def test_a_run_that_must_be_recorded_does_not_go_on_from_an_edited_log(mark):
    log = mark.register / "log.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines[1] = lines[1].replace(b'"sig":"', b'"sig":"A', 1)
    log.write_bytes(b"".join(lines))
    with pytest.raises(RegisterError, match=r"does not hold .*entry 1"):
        Run(mark, "plain", require=True)


def test_other_processes_than_the_main_one_record_nothing(mark):
    run = Run(mark, "plain", main=False)
    run.start(data=[1], arguments={}, model=object())
    run.finish(None, step=1, epoch=1.0, system=None, total=1)
    assert told(mark) == []


def test_the_training_key_may_not_speak_for_the_owner(mark):
    from wmplug.register import Signer

    Register(mark.register, Signer(mark.signing_seed())).append(
        "secret.committed", {"watermark": "x", "commitment": "y"}
    )
    (finding,) = [f for f in check(mark.register).findings if f.level == "refused"]
    assert finding.code == "not-allowed"


def test_weights_are_found_in_a_checkpoint_folder(tmp_path):
    (tmp_path / "training_args.bin").touch()
    assert weights_of(tmp_path) == tmp_path
    (tmp_path / "model.safetensors").touch()
    assert weights_of(tmp_path) == tmp_path / "model.safetensors"
    (tmp_path / "model-2.safetensors").touch()
    assert weights_of(tmp_path) == tmp_path
