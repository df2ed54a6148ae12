"""Marks whose owners' secrets are the same in every run, as what a stranger hits by luck is."""

import dataclasses
from pathlib import Path

import pytest

from wmplug import create


@pytest.fixture(scope="session")
def owner(owner):
    return dataclasses.replace(owner, _roots=(bytes(range(32)),), path=Path("nowhere"))


@pytest.fixture(scope="session")
def rival(rival):
    return dataclasses.replace(rival, _roots=(bytes(range(32, 64)),), path=Path("nowhere"))


@pytest.fixture(scope="session")
def mark(owner, digits):
    return create(owner, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10)


@pytest.fixture(scope="session")
def theirs(rival, digits):
    return create(rival, scheme="random-label", carriers=digits[0], labels=digits[1], classes=10)


@pytest.fixture(scope="session")
def grouped(owner, digits):
    return create(owner, scheme="logo", carriers=digits[0], labels=digits[1], classes=10, variants=2, triggers=100)
