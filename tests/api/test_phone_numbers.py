"""Phone numbers: what the request may look like before any provider is asked."""

import httpx

from api.services import Services
from tests.makers import make_caller, make_holder


async def test_neither_a_code_nor_a_payload_is_malformed(
    services: Services, client: httpx.AsyncClient
) -> None:
    caller = await make_caller(services, client, await make_holder(services))
    answer = await caller.call("PUT", "/me/phone", json={"provider": "alipay"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "bad-request"


async def test_alipays_payload_comes_as_its_own_members(
    services: Services, client: httpx.AsyncClient
) -> None:
    caller = await make_caller(services, client, await make_holder(services))
    payload = {"provider": "alipay", "response": "bm90IHNpZ25lZA==", "sign": "AA=="}
    answer = await caller.call("PUT", "/me/phone", json=payload)
    assert answer.json()["code"] == "sign-in-code-refused"
