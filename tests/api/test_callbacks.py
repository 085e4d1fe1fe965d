"""Notices sent by running simulators: a genuine one is money once, all else is none."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from api.commands.callers import Citizen, body_of
from tests.makers import make_customer
from tests.serving import Live

pytestmark = pytest.mark.xdist_group("simulators")
at_both = pytest.mark.parametrize("channel", ["wechat_pay", "alipay"])

PROVIDERS = {"wechat_pay": "wechat", "alipay": "alipay"}
AMOUNT_FEN = 2_500
NOT_GENUINE = {
    "bad_signature": {"wechat_pay": "bad-signature", "alipay": "bad-signature"},
    "tamper_body": {"wechat_pay": "bad-signature", "alipay": "bad-signature"},
    "old_timestamp": {"wechat_pay": "stale"},
    "unknown_serial": {"wechat_pay": "unknown-serial", "alipay": "bad-signature"},
    "sign_test": {"wechat_pay": "probe", "alipay": "bad-signature"},
}
"""What the simulators can do wrong, and what is written down about it.

Alipay's notices carry no time that could go stale.
"""
NOT_OURS = {"wrong_amount": "amount-mismatch", "wrong_merchant": "merchant-mismatch"}


async def until(is_so: Callable[[], Awaitable[Any]], *, seconds: float = 10) -> Any:
    """Wait until something is so that happens in another process."""
    began = monotonic()
    while not (found := await is_so()):
        assert monotonic() - began < seconds, "it did not happen"
        await asyncio.sleep(0.02)
    return found


async def opened(live: Live, channel: str) -> tuple[Citizen, dict[str, Any]]:
    """Return a customer and their unpaid recharge."""
    caller = await make_customer(live.services, live.http, provider=PROVIDERS[channel])
    body = {"card_id": caller.card_id, "amount_fen": AMOUNT_FEN, "channel": channel}
    answer = await caller.call("POST", "/recharges", key=secrets.token_hex(16), json=body)
    return caller, body_of(answer, 201)


async def pay(live: Live, recharge: dict[str, Any], mode: str, **how: Any) -> None:
    """Let the payer pay, and the notices about it go in this way."""
    order = {"out_trade_no": recharge["out_trade_no"]}
    disturbed = await asyncio.to_thread(live.simulators.tell, "notices", **order, mode=mode, **how)
    assert disturbed.is_success, disturbed.text
    paid = await asyncio.to_thread(live.simulators.tell, "pay", **order)
    assert paid.is_success, paid.text


async def rows(live: Live, sql: str) -> list[tuple[Any, ...]]:
    """Return rows of this test's database."""
    async with live.services.db.begin() as session:
        return [tuple(row) for row in await session.execute(text(sql))]


async def credits_of(live: Live) -> list[int]:
    """Return the amounts that were credited to cards."""
    sql = "SELECT amount_fen FROM ledger_entry e JOIN ledger_transfer t ON t.id = e.transfer_id"
    found = await rows(live, f"{sql} WHERE t.kind LIKE 'recharge.%' AND amount_fen > 0")
    return [int(row[0]) for row in found]


@at_both
async def test_a_genuine_notice_credits_at_once(live: Live, channel: str) -> None:
    caller, recharge = await opened(live, channel)
    assert (await caller.card())["balance_fen"] == 0
    await pay(live, recharge, "normal")

    async def is_credited() -> bool:
        return bool((await caller.card())["balance_fen"] == AMOUNT_FEN)

    await until(is_credited)
    assert await credits_of(live) == [AMOUNT_FEN]
    assert await rows(live, "SELECT problem FROM channels_notice") == [(None,)]
    shown = (await caller.call("GET", f"/recharges/{recharge['id']}")).json()
    assert (shown["state"], shown["pay"]) == ("succeeded", None)


@pytest.mark.parametrize(
    ("channel", "mode", "problem"),
    [(channel, mode, said) for mode, by in NOT_GENUINE.items() for channel, said in by.items()],
)
async def test_what_is_not_genuine_credits_nothing_and_is_kept(
    live: Live, channel: str, mode: str, problem: str
) -> None:
    caller, recharge = await opened(live, channel)
    await pay(live, recharge, mode, times=1)
    kept = await until(lambda: rows(live, "SELECT channel, problem FROM channels_quarantine"))
    assert kept == [(channel, problem)]
    assert await credits_of(live) == []
    assert (await caller.card())["balance_fen"] == 0


@at_both
@pytest.mark.parametrize("mode", NOT_OURS)
async def test_what_does_not_fit_our_order_credits_nothing_and_is_kept(
    live: Live, channel: str, mode: str
) -> None:
    _, recharge = await opened(live, channel)
    await pay(live, recharge, mode, times=1)
    kept = await until(lambda: rows(live, "SELECT channel, problem FROM channels_notice"))
    assert kept == [(channel, NOT_OURS[mode])]
    assert await credits_of(live) == []
    # It is genuine, so it was acknowledged: the provider does not send it again.
    notices = await asyncio.to_thread(_notices, live, recharge)
    assert notices[0]["is_acknowledged"] is True


@at_both
async def test_fifty_copies_at_once_credit_once(live: Live, channel: str) -> None:
    caller, recharge = await opened(live, channel)
    await pay(live, recharge, "duplicate", copies=50, times=1)

    async def is_acknowledged() -> bool:
        return bool((await asyncio.to_thread(_notices, live, recharge))[0]["is_acknowledged"])

    await until(is_acknowledged, seconds=20)
    assert await credits_of(live) == [AMOUNT_FEN]
    assert len(await rows(live, "SELECT 1 FROM channels_notice")) == 1
    again = await asyncio.to_thread(
        live.simulators.tell, "resend", out_trade_no=recharge["out_trade_no"]
    )
    assert again.is_success
    await until(is_acknowledged)
    assert await credits_of(live) == [AMOUNT_FEN]
    assert (await caller.card())["balance_fen"] == AMOUNT_FEN


@at_both
async def test_a_lost_notice_is_made_up_for_by_asking(live: Live, channel: str) -> None:
    caller, recharge = await opened(live, channel)
    asked = (await caller.call("GET", f"/recharges/{recharge['id']}")).json()
    assert (asked["state"], bool(asked["pay"])) == ("paying", True)
    await pay(live, recharge, "drop")
    assert (await caller.card())["balance_fen"] == 0
    shown = (await caller.call("GET", f"/recharges/{recharge['id']}")).json()
    assert shown["state"] == "succeeded"
    assert (await caller.card())["balance_fen"] == AMOUNT_FEN
    # And the notice that comes late all the same credits nothing more.
    await asyncio.to_thread(
        live.simulators.tell, "notices", out_trade_no=recharge["out_trade_no"], mode="normal"
    )
    await asyncio.to_thread(live.simulators.tell, "resend", out_trade_no=recharge["out_trade_no"])
    await until(lambda: rows(live, "SELECT 1 FROM channels_notice"))
    assert await credits_of(live) == [AMOUNT_FEN]


@at_both
async def test_a_no_is_in_the_providers_own_words(live: Live, channel: str) -> None:
    path = {"wechat_pay": "/v1/callback/wechat-pay", "alipay": "/v1/callback/alipay"}[channel]
    for content in (b"", b"{}", b"a=b&sign=x", b"\xff" * 100, b"x" * 70_000):
        answer = await live.http.post(path, content=content)
        assert answer.status_code == 401
        if channel == "alipay":
            assert answer.content == b"failure"
        else:
            assert answer.json()["code"] == "FAIL"
    kept = await rows(live, "SELECT channel FROM channels_quarantine")
    assert kept == [(channel,)] * 5
    assert await rows(live, "SELECT 1 FROM channels_notice") == []


@at_both
async def test_a_yes_is_exactly_what_the_provider_reads(live: Live, channel: str) -> None:
    _, recharge = await opened(live, channel)
    await pay(live, recharge, "normal")
    sql = "SELECT convert_from(raw_body, 'UTF8'), headers FROM channels_notice"
    raw_body, headers = (await until(lambda: rows(live, sql)))[0]
    path = {"wechat_pay": "/v1/callback/wechat-pay", "alipay": "/v1/callback/alipay"}[channel]
    again = await live.http.post(path, content=raw_body.encode(), headers=headers)
    if channel == "alipay":
        assert (again.status_code, again.content) == (200, b"success")
        assert again.headers["content-type"].startswith("text/plain")
    else:
        assert (again.status_code, again.content) == (204, b"")
    assert await credits_of(live) == [AMOUNT_FEN]
    # Byte for byte the notice that was believed; one more byte, and it is not.
    more = await live.http.post(path, content=raw_body.encode() + b" ", headers=headers)
    assert more.status_code == 401


def _notices(live: Live, recharge: dict[str, Any]) -> list[dict[str, Any]]:
    url = f"{live.simulators.control}/notices"
    answer = httpx.get(url, params={"out_trade_no": recharge["out_trade_no"]}, trust_env=False)
    told: list[dict[str, Any]] = answer.json()
    return [notice for notice in told if notice["about"] == "payment"]
