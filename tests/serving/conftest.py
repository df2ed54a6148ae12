import pytest
from served_digits import marked, pool, told_by


@pytest.fixture(scope="session")
def story(digits):
    return told_by(digits)


@pytest.fixture(scope="session")
def mark(story):
    return marked(story)


@pytest.fixture
def asking(story):
    """A watermark that asks what was decided."""
    return lambda mark, decided: mark.with_queries(
        decided, carriers=story.carriers, labels=story.labels, pool=pool(story, decided.inputs)
    )
