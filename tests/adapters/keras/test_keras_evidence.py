import dataclasses

import pytest
from keras_models import BACKEND, build

from wmplug.adapters.keras import WatermarkCallback
from wmplug.errors import EvidenceWarning, RegisterError
from wmplug.register import Register
from wmplug.register.checking import check

pytestmark = pytest.mark.filterwarnings("ignore::wmplug.errors.VerificationWarning")


@pytest.fixture
def entries(mark):
    """What was recorded since the test began."""
    before = len(list(Register(mark.register).entries()))
    return lambda: list(Register(mark.register).entries())[before:]


def test_a_fit_leaves_its_story(mark, digits, entries, probe):
    images, labels = digits
    model = build(probe)
    model.fit(
        images[:640], labels[:640], batch_size=32, epochs=2, verbose=0, callbacks=[WatermarkCallback(mark, rate=0.12)]
    )
    told = entries()
    assert [entry.type for entry in told] == [
        *("dataset.committed", "parameters.committed", "architecture.committed", "training.started"),
        *("watermark.inserted", "system.committed", "training.checkpoint") * 2,
        *("system.committed", "training.finished"),
    ]
    assert told[0].body["count"] == 640
    assert told[1].body["document"]["fit"]["epochs"] == 2
    inserted = [entry.body for entry in told if entry.type == "watermark.inserted"]
    if inserted[-1]["total"] is None:
        assert BACKEND == "tensorflow"  # where only the graph may know the size of a batch
    else:
        assert inserted[-1]["total"] == sum(body["triggers"] for body in inserted) == probe.counts[0]
    assert told[-1].body["verdict"]["watermark"] == mark.id
    assert check(mark.register).ok


def test_a_run_that_must_be_recorded_and_cannot_does_not_begin(mark, small, tmp_path):
    lost = dataclasses.replace(mark, register=tmp_path / "nowhere")
    model = build()
    with pytest.raises(RegisterError, match="require_evidence"):
        model.fit(*small, verbose=0, callbacks=[WatermarkCallback(lost, rate=0.2, require_evidence=True)])
    with pytest.warns(EvidenceWarning, match="NOT EVIDENCED"):
        model.fit(*small, verbose=0, callbacks=[WatermarkCallback(lost, rate=0.2)])
