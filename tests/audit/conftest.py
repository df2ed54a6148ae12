"""One marked model and its unmarked twin, and a thief with little time."""

import dataclasses

import pytest

from wmplug.audit import digits as laboratory


@pytest.fixture(scope="session")
def short():
    """Less training than the command takes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laboratory, "EPOCHS", 20)
        yield


@pytest.fixture(scope="session")
def mark():
    return laboratory.mark("combined", blends=1500, share=0.4, questions=500)


@pytest.fixture(scope="session")
def model(mark, short):
    return laboratory.trained(mark, 0)


@pytest.fixture(scope="session")
def twin(short):
    return laboratory.trained(None, 0)


@pytest.fixture(scope="session")
def setting():
    return dataclasses.replace(laboratory.setting(), epochs=12, tuning_epochs=8, make=None)


@pytest.fixture(scope="session")
def known(mark, setting):
    """The setting as an attack is given it: with the scheme."""
    return dataclasses.replace(setting, scheme=type(mark.scheme).restore(mark.scheme.parameters()))
