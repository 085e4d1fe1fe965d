"""Closing a card: every fen goes back to where it came from, by the providers' own books too."""

import secrets
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from api.clock import utc_now
from api.commands.callers import Citizen, body_of
from api.services import Services
from tests.makers import make_customer, make_shop
from tests.serving import Live, work
from tests.stories.telling import PIN, charge, new_code, open_recharge, recharge, tell, until
from wallet import invariants

pytestmark = pytest.mark.xdist_group("simulators")

POLL = "wallet.fulfilment:poll"


async def ready(live: Live) -> Citizen:
    """Return a customer whom both providers know, with a PIN and a step-up."""
    ann = await make_customer(live.services, live.http)
    body_of(await ann.call("PUT", "/me/payment-pin", json={"pin": PIN}), 204)
    await ann.step_up(PIN)
    also = Citizen(live.http, utc_now)
    other = await also.sign_in("alipay", f"also-{secrets.token_hex(4)}")
    me = body_of(await ann.call("GET", "/me"))
    async with live.services.db.begin() as session:
        # As merging the two accounts would.
        await session.execute(
            text("UPDATE people_sign_in SET citizen_id = :to WHERE citizen_id = :of"),
            {"to": me["id"], "of": other["citizen"]["id"]},
        )
    return ann


async def close(ann: Citizen, key: str) -> Any:
    """Close the card."""
    return await ann.call("POST", f"/cards/{ann.card_id}/closure", key=key, json={})


async def given_back(services: Services, opened: dict[str, Any]) -> list[tuple[str, int | None]]:
    """Return what the provider's book says was given back of an order."""
    async with services.db.begin() as session:
        numbers = await session.scalars(
            text("SELECT refund_no FROM recharge_refund WHERE recharge_id = :id ORDER BY id"),
            {"id": opened["id"]},
        )
    channel = services.cashier.channels[opened["channel"]]
    found = [await channel.query_refund(opened["out_trade_no"], number) for number in numbers]
    return [(one.state, one.amount_fen) for one in found]


async def test_a_closed_card_gave_every_fen_back_through_both_channels(live: Live) -> None:
    services = live.services
    shop = (await make_shop(services)).machine(live.http, utc_now)
    ann = await ready(live)
    by_wechat = await recharge(live, ann, "wechat_pay", 3_000)
    by_alipay = await recharge(live, ann, "alipay", 2_000)
    assert (await charge(shop, await new_code(ann), 500))["state"] == "succeeded"
    key = secrets.token_hex(16)
    asked = body_of(await close(ann, key), 201)
    assert asked["state"] in {"closing", "closed"}
    assert asked["balance_fen"] == 0

    later = services._replace(clock=lambda: utc_now() + timedelta(hours=2))

    async def is_closed() -> bool:
        await work(later, POLL)
        return bool((await ann.card())["state"] == "closed")

    await until(is_closed)
    # The newest recharge goes back first, whole; what was spent is missing from the oldest.
    assert await given_back(services, by_alipay) == [("succeeded", 2_000)]
    assert await given_back(services, by_wechat) == [("succeeded", 2_500)]
    states = [
        body_of(await ann.call("GET", f"/recharges/{one['id']}"))["state"]
        for one in (by_wechat, by_alipay)
    ]
    assert states == ["partly_refunded", "refunded"]
    again = await close(ann, key)
    assert (again.status_code, again.json()) == (200, asked)
    declined = await charge(shop, await new_code(ann), 1)
    assert (declined["state"], declined["reason"]) == ("declined", 404)
    assert [proof for proof in await invariants.prove(services.db) if proof.faults] == []
    # And a new card may be issued to the same person.
    assert (await ann.get_card())["balance_fen"] == 0


async def test_a_card_that_may_still_be_paid_for_is_not_closed(live: Live) -> None:
    ann = await ready(live)
    opened = await open_recharge(ann, "wechat_pay", 700)
    refused = await close(ann, secrets.token_hex(16))
    assert (refused.status_code, refused.json()["code"]) == (409, "recharge-open")
    await tell(live.simulators, "pay", out_trade_no=opened["out_trade_no"])

    async def is_credited() -> bool:
        return bool((await ann.card())["balance_fen"] == 700)

    await until(is_credited)
    body_of(await close(ann, secrets.token_hex(16)), 201)


async def test_money_that_the_provider_cannot_return_yet_stays_owed(live: Live) -> None:
    services = live.services
    ann = await ready(live)
    opened = await recharge(live, ann, "wechat_pay", 900)
    order = {"out_trade_no": opened["out_trade_no"]}
    await tell(live.simulators, "refunds", **order, outcome="abnormal")
    assert body_of(await close(ann, secrets.token_hex(16)), 201)["state"] == "closing"
    later = services._replace(clock=lambda: utc_now() + timedelta(hours=2))
    await work(later, POLL)
    assert (await ann.card())["state"] == "closing"
    async with services.db.begin() as session:
        sql = "SELECT balance_fen FROM ledger_account WHERE kind = 'refund.payable'"
        assert await session.scalar(text(sql)) == 900
    assert [proof for proof in await invariants.prove(services.db) if proof.faults] == []
