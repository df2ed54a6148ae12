"""An owner who fills the log with the key at hand: a commitment comes before the suspect, and after the key."""

import numpy as np
import pytest
from served_digits import flat, pool
from sklearn.svm import SVC

from wmplug import Owner, create, verify
from wmplug.register import Register, anchors
from wmplug.schemes.served import Served
from wmplug.schemes.tilt.references import References
from wmplug.serving import Log, commit
from wmplug.watermark.decided import Decided


@pytest.fixture
def made(story, neutral, tmp_path, monkeypatch):
    """A mark, and a committed log of the queries whose true class is what the coin says."""
    owner = Owner.create(tmp_path / "register", name="Eve", passphrase="words", scrypt_n=2**10)
    anchors.trust(owner.path, neutral)
    given = {"carriers": story.carriers, "labels": story.labels}
    mark = create(owner, scheme=Served(personal=0.0, pool=pool(story, story.carriers)), classes=10, **given)
    order = np.argsort(-story.references(story.asked), axis=1)
    other = np.where(order[:, 0] == story.truth, order[:, 1], order[:, 0])
    every = Decided(story.asked, np.sort(np.stack([story.truth, other], axis=1), axis=1))
    coins = mark.scheme.signs_of(mark.triggers.plan, mark.triggers.signs, mark.subkeys, every)
    log = Log(tmp_path / "log.db", mark)
    log.add(every.only(np.flatnonzero((coins > 0) == (story.truth > other))))
    commit(log, mark)
    anchors.anchor(Register.of(owner))
    # References take their time; others of the same kind do.
    monkeypatch.setattr(Served, "heard", lambda self, brief, asked, _: References(*[pool(story, asked.inputs)] * 2))
    return mark.with_queries(log.decided(), **given)


def test_a_good_model_fits_a_log_that_was_made_to_fit_and_the_verdict_says_whose_word_the_log_is(made, story):
    innocent = SVC(C=10).fit(flat(story.asked), story.truth)
    verdict = verify(made, lambda inputs: innocent.predict(flat(inputs)), exhaustive=True)
    assert verdict.proven
    assert "; questions committed by 20" in str(verdict)
    assert "; log AS KEPT" in str(verdict)
