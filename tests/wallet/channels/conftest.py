from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from secrets import token_hex
from time import monotonic

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key

from tests.simulators.listening import Inbox, listen
from tests.simulators.running import Simulators, start_simulators


@pytest.fixture(scope="session")
def simulators(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulators]:
    with start_simulators(tmp_path_factory.mktemp("channels"), time_scale=0.02) as running:
        yield running


@pytest.fixture(scope="session")
def clock(simulators: Simulators) -> Callable[[], datetime]:
    """The simulators' clock, read once: it goes on with ours."""
    started_at, read_at = simulators.now(), monotonic()
    return lambda: started_at + timedelta(seconds=monotonic() - read_at)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    with listen() as listening:
        yield listening


@pytest.fixture
def order_no() -> str:
    return f"RC{token_hex(13).upper()}"


@pytest.fixture(scope="session")
def our_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)


@pytest.fixture(scope="session")
def provider_key() -> RSAPrivateKey:
    return generate_private_key(public_exponent=65537, key_size=2048)
