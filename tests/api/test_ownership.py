"""What is somebody else's looks like what is not there: 404, and nothing happens."""

import httpx
import pytest

from api.commands.callers import Citizen
from api.commands.making import make_recharge
from api.services import Services
from identity.kernel import new_id
from tests.documented import document
from tests.makers import (
    make_caller,
    make_citizen,
    make_holder,
    make_pass_type,
    make_session,
)

KEY = "a-key-of-sixteen"
PIN = "204816"
WANTED = {"nbf": 1_795_312_800, "slen": 15, "nsl": 1560, "anchor": "A" * 22}

BODIES = {
    "PUT /v1/citizen/cards/{card_id}/phone": {"device_id": "device-1", "model": "x"},
    "POST /v1/citizen/cards/{card_id}/credentials": {"credentials": [WANTED]},
    "POST /v1/citizen/recharges/{recharge_id}/refunds": {"reason": "x"},
}
"""Bodies of operations on a thing of a citizen's that need one; the others take `{}`."""


def on_things() -> list[tuple[str, str]]:
    """Return every operation of citizens that names a thing in its path."""
    return [
        (method.upper(), path)
        for path, operations in document()["paths"].items()
        for method in operations
        if path.startswith("/v1/citizen/") and "{" in path
    ]


@pytest.fixture
async def stranger(services: Services, client: httpx.AsyncClient) -> Citizen:
    """Return a signed-in person with a card of their own and a step-up."""
    made = await make_caller(services, client, await make_holder(services))
    await made.call("PUT", "/me/payment-pin", json={"pin": PIN})
    await made.step_up(PIN)
    return made


async def test_every_operation_hides_things_of_others(
    services: Services, client: httpx.AsyncClient, stranger: Citizen
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    owner = await make_caller(services, client, holder)
    recharge_id, _ = await make_recharge(
        services, holder.citizen_id, holder.card_id, amount_fen=100
    )
    before = await owner.card()
    theirs = {"card_id": holder.card_id, "recharge_id": recharge_id}
    absent = dict.fromkeys(theirs, new_id(services.clock()))
    assert len(on_things()) >= 11
    for method, path in on_things():
        body = BODIES.get(f"{method} {path}", {}) if method in {"POST", "PUT"} else None
        answers = [
            await stranger.call(
                method, path.format(**ids).removeprefix("/v1/citizen"), key=KEY, json=body
            )
            for ids in (theirs, absent)
        ]
        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), path
        # Nothing tells a thing of somebody else's from one that is not.
        told = [{**answer.json(), "request_id": ""} for answer in answers]
        assert told[0] == told[1]
    assert await owner.card() == before


async def test_a_body_cannot_name_somebody_elses_card(
    services: Services, client: httpx.AsyncClient, stranger: Citizen
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    pass_type, _ = await make_pass_type(services, [])
    card_id = str(holder.card_id)
    for path, body in (
        ("/recharges", {"card_id": card_id, "amount_fen": 100, "channel": "wechat_pay"}),
        (
            "/passes",
            {"card_id": card_id, "pass_type_id": str(pass_type.id), "pay_by": "balance"},
        ),
    ):
        answer = await stranger.call("POST", path, key=KEY, json=body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not-found"), path


async def test_lists_hold_ones_own_only(services: Services, client: httpx.AsyncClient) -> None:
    holders = [await make_holder(services, balance_fen=2_000) for _ in range(2)]
    callers = [await make_caller(services, client, holder) for holder in holders]
    pass_type, _ = await make_pass_type(services, [])
    for caller in callers:
        body = {
            "card_id": caller.card_id,
            "pass_type_id": str(pass_type.id),
            "pay_by": "balance",
        }
        assert (await caller.call("POST", "/passes", key=KEY, json=body)).status_code == 201
    for caller in callers:
        cards = (await caller.call("GET", "/cards")).json()["items"]
        assert [card["id"] for card in cards] == [caller.card_id]
        assert (await caller.call("GET", "/passes")).json()["items"] == cards[0]["passes"]
        assert len(cards[0]["passes"]) == 1


async def test_without_a_checked_identity_there_is_no_card_and_no_money(
    services: Services, client: httpx.AsyncClient
) -> None:
    caller = await make_session(services, client, await make_citizen(services, is_verified=False))
    for path, body in (
        ("/cards", {"card_type": "standard"}),
        (
            "/recharges",
            {"card_id": str(new_id(services.clock())), "amount_fen": 1, "channel": "alipay"},
        ),
    ):
        answer = await caller.call("POST", path, key=KEY, json=body)
        assert (answer.status_code, answer.json()["code"]) == (403, "real-name-required")


async def test_a_person_has_one_living_card(services: Services, client: httpx.AsyncClient) -> None:
    caller = await make_caller(services, client, await make_holder(services))
    answer = await caller.call("POST", "/cards", json={"card_type": "standard"})
    assert (answer.status_code, answer.json()["code"]) == (409, "card-exists")
