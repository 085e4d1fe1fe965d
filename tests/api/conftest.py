"""What the API's tests share: one set of drawn papers."""

import pytest

from tests.api.papers import Papers, draw_papers


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    """Return the papers of one made-up adult."""
    return draw_papers(tmp_path_factory.mktemp("papers"))
