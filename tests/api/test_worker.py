"""The job process: what was lost or left open is taken up again, once, in its own schema."""

import asyncio
import secrets
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest
from sqlalchemy import text

from api import migrations
from api.clock import utc_now
from api.commands.callers import Citizen, body_of
from api.commands.making import make_recharge
from api.services import Services, open_services
from api.settings import Settings
from identity.kernel import defer
from tests.conftest import SetClock
from tests.makers import (
    make_caller,
    make_customer,
    make_gate,
    make_holder,
    make_pass_type,
)
from tests.serving import Live, work
from wallet import fulfilment
from wallet.ledger.posting import Poster

POLL = "wallet.fulfilment:poll"
VOID = "wallet.admission.admissions:void_waiting"
QUERY = "wallet.fulfilment:query_attempt"
AMOUNT_FEN = 2_500
KEY = "a-key-of-sixteen"


def later(live: Live, **span: float) -> Services:
    """Return the means of a worker that works after some time."""
    return live.services._replace(clock=lambda: utc_now() + timedelta(**span))


async def opened(live: Live) -> tuple[Citizen, dict[str, Any]]:
    """Return a customer and their unpaid recharge, of which no notice will come."""
    caller = await make_customer(live.services, live.http)
    body = {"card_id": caller.card_id, "amount_fen": AMOUNT_FEN, "channel": "wechat_pay"}
    recharge = body_of(await caller.call("POST", "/recharges", key=KEY, json=body), 201)
    await tell(live, "notices", out_trade_no=recharge["out_trade_no"], mode="drop")
    return caller, recharge


async def tell(live: Live, action: str, **told: Any) -> httpx.Response:
    """Tell the simulators something."""
    return await asyncio.to_thread(live.simulators.tell, action, **told)


async def states(services: Services, table: str) -> list[str]:
    """Return the states of a table's rows."""
    async with services.db.begin() as session:
        return list(await session.scalars(text(f"SELECT state FROM {table} ORDER BY created_at")))


@pytest.mark.xdist_group("simulators")
async def test_a_lost_notice_is_made_up_for_by_the_poller(live: Live) -> None:
    caller, recharge = await opened(live)
    assert (await tell(live, "pay", out_trade_no=recharge["out_trade_no"])).is_success
    await work(live.services, POLL)
    assert (await caller.card())["balance_fen"] == 0, "not yet due"
    await work(later(live, seconds=6), POLL)
    assert (await caller.card())["balance_fen"] == AMOUNT_FEN
    for _ in range(2):
        await work(later(live, seconds=60), POLL)
    assert (await caller.card())["balance_fen"] == AMOUNT_FEN


@pytest.mark.xdist_group("simulators")
async def test_a_round_that_could_not_book_anything_goes_on_and_the_next_one_books(
    live: Live,
) -> None:
    (ann, first), (bo, second) = await opened(live), await opened(live)
    for recharge in (first, second):
        assert (await tell(live, "pay", out_trade_no=recharge["out_trade_no"])).is_success
    stopped = live.services.cashier._replace(poster=Poster(live.services.db))
    # Raises nothing, though both credits are refused: a refusal of one ends that one alone.
    await fulfilment.poll(stopped, now=utc_now() + timedelta(seconds=6))
    assert [(await one.card())["balance_fen"] for one in (ann, bo)] == [0, 0]
    await work(later(live, seconds=15), POLL)
    assert [(await one.card())["balance_fen"] for one in (ann, bo)] == [AMOUNT_FEN] * 2


@pytest.mark.xdist_group("simulators")
async def test_an_expired_order_is_closed_at_the_provider_first(live: Live) -> None:
    caller, recharge = await opened(live)
    await work(later(live, minutes=31), POLL)
    late = await tell(live, "pay", out_trade_no=recharge["out_trade_no"])
    assert late.status_code == 409, "nobody can pay it any more"
    shown = (await caller.call("GET", f"/recharges/{recharge['id']}")).json()
    assert (shown["state"], shown["pay"]) == ("closed", None)


@pytest.mark.xdist_group("simulators")
async def test_an_order_paid_just_before_it_expired_is_credited(live: Live) -> None:
    caller, recharge = await opened(live)
    assert (await tell(live, "pay", out_trade_no=recharge["out_trade_no"])).is_success
    await work(later(live, minutes=31), POLL)
    shown = (await caller.call("GET", f"/recharges/{recharge['id']}")).json()
    assert shown["state"] == "succeeded"
    assert (await caller.card())["balance_fen"] == AMOUNT_FEN


@pytest.mark.xdist_group("simulators")
async def test_a_refund_that_takes_its_time_is_followed_to_its_end(live: Live) -> None:
    caller, recharge = await opened(live)
    order = {"out_trade_no": recharge["out_trade_no"]}
    await tell(live, "pay", **order)
    await caller.call("GET", f"/recharges/{recharge['id']}")
    await tell(live, "refunds", **order, outcome="processing")
    path = f"/recharges/{recharge['id']}/refunds"
    refund = body_of(await caller.call("POST", path, key=KEY, json={"reason": "x"}), 201)
    assert (refund["state"], refund["amount_fen"]) == ("processing", AMOUNT_FEN)
    await work(live.services, POLL)
    assert await states(live.services, "recharge_refund") == ["processing"]
    ended = await tell(
        live, "refunds", **order, outcome="success", out_refund_no=refund["refund_no"]
    )
    assert ended.is_success, ended.text
    await work(later(live, hours=2), POLL)
    assert await states(live.services, "recharge_refund") == ["succeeded"]
    # A retry gets the answer of the first request, word for word.
    again = await caller.call("POST", path, key=KEY, json={"reason": "x"})
    assert (again.status_code, again.json()) == (200, refund)


async def test_a_use_that_no_gate_confirmed_is_given_back(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder, gate = await make_holder(services, balance_fen=5_000), await make_gate(services)
    pass_type, _ = await make_pass_type(services, [gate.park.id], entries=1)
    caller = await make_caller(services, client, holder)
    body = {
        "card_id": str(holder.card_id),
        "pass_type_id": str(pass_type.id),
        "pay_by": "balance",
    }
    assert (await caller.call("POST", "/passes", key=KEY, json=body)).status_code == 201
    machine = gate.machine(client, clock)

    async def scan(slots_ahead: int) -> dict[str, Any]:
        value = holder.phone.code_at(clock(), slots_ahead=slots_ahead)
        asked = {
            "scan_id": secrets.token_hex(8),
            "direction": "in",
            "credential": {"kind": "code", "value": value},
            "scanned_at": clock().isoformat(),
        }
        answer = await machine.call("POST", "/v1/gate/admissions", asked)
        return dict(body_of(answer))

    first = await scan(0)
    assert (first["decision"], first["left"]) == ("allow", 0)
    assert (await scan(1))["decision"] == "deny"
    await work(services, VOID)
    assert (await scan(1))["decision"] == "deny", "thirty seconds are not over"
    clock.go(seconds=31)
    await work(services, VOID)
    again = await scan(0)
    assert (again["decision"], again["left"]) == ("allow", 0)
    # A gate that was cut off tells late who went in: that is the truth, so the use counts again.
    clock.go(seconds=31)
    await work(services, VOID)
    told = {"result": "passed", "at": clock().isoformat()}
    path = f"/v1/gate/admissions/{again['admission_id']}/result"
    assert (await machine.call("POST", path, told)).status_code == 200
    assert (await scan(0))["decision"] == "deny"
    other = await machine.call("POST", path, {**told, "result": "not_passed"})
    assert (other.status_code, other.json()["code"]) == (409, "state-conflict")


async def test_a_job_of_an_undone_transaction_is_none(services: Services) -> None:
    async def undone() -> None:
        async with services.db.begin() as session:
            await defer(session, QUERY, attempt_id=str(UUID(int=1)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await undone()
    async with services.db.begin() as session:
        assert await session.scalar(text("SELECT count(*) FROM procrastinate_jobs")) == 0


async def test_the_jobs_of_two_schemas_do_not_mix(
    services: Services, settings: Settings, clock: SetClock
) -> None:
    other = msgspec.structs.replace(settings, schema="town")
    await asyncio.to_thread(migrations.upgrade, other.database_url, other.schema)
    async with open_services(other, clock) as town:
        for here in (services, town):
            holder = await make_holder(here)
            _, attempt_id = await make_recharge(
                here, holder.citizen_id, holder.card_id, amount_fen=100
            )
            async with here.db.begin() as session:
                await defer(session, QUERY, attempt_id=str(attempt_id))

        async def left(here: Services) -> list[str]:
            async with here.db.begin() as session:
                sql = "SELECT status::text FROM procrastinate_jobs WHERE task_name = :name"
                return list(await session.scalars(text(sql), {"name": QUERY}))

        await work(services)
        assert await left(services) == ["succeeded"]
        assert await left(town) == ["todo"]
        await work(town)
        assert await left(town) == ["succeeded"]
