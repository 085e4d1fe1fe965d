"""Both suites, for every test that names `issuer`; and a counter of what a suite had to compute."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from tests.wallet.codes.issuing import ISSUERS, Issuer
from wallet.codes.suites import SUITES


@pytest.fixture(params=ISSUERS, ids=lambda issuer: issuer.suite.name, scope="session")
def issuer(request: pytest.FixtureRequest) -> Issuer:
    found: Issuer = request.param
    return found


@pytest.fixture
def computed(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often the real suite was asked for each of its functions."""
    counter: Counter[str] = Counter()

    def counting(name: str) -> Callable[..., Any]:
        real = getattr(issuer.suite, name)

        def count(*args: bytes) -> Any:
            counter[name] += 1
            return real(*args)

        return count

    counted = structs.replace(
        issuer.suite, verify=counting("verify"), digest=counting("digest"), mac=counting("mac")
    )
    monkeypatch.setitem(SUITES, issuer.suite.number, counted)
    return counter
