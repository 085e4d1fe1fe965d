from collections.abc import Iterator
from secrets import token_hex

import pytest

from tests.simulators.listening import Inbox, listen
from tests.simulators.running import Simulators, start_simulators


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulators]:
    with start_simulators(tmp_path_factory.mktemp("providers"), time_scale=0.02) as running:
        yield running


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with listen() as listening:
        yield listening


@pytest.fixture
def order_no() -> str:
    return f"RC{token_hex(13).upper()}"
