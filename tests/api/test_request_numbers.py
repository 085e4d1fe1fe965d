"""Every write happens once over HTTP, by its header or by the number in its body."""

import secrets
from typing import Any

import httpx
from sqlalchemy import text

from api.commands.making import make_recharge
from api.services import Services
from tests.conftest import SetClock
from tests.makers import (
    make_caller,
    make_gate,
    make_holder,
    make_pass_type,
    make_shop,
)

KEY = "a-key-of-sixteen"


def same(first: httpx.Response, again: httpx.Response, *, status: int = 201) -> None:
    """Hold a repeated answer against the first one, byte for byte."""
    assert (first.status_code, again.status_code) == (status, 200)
    assert "idempotency-replayed" not in first.headers
    assert again.headers["idempotency-replayed"] == "true"
    assert again.content == first.content


async def test_a_write_without_a_number_is_malformed(
    services: Services, client: httpx.AsyncClient
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    caller = await make_caller(services, client, holder)
    card = {"card_id": str(holder.card_id)}
    for path, body in (
        ("/recharges", {**card, "amount_fen": 100, "channel": "wechat_pay"}),
        ("/passes", {**card, "pass_type_id": str(holder.card_id), "pay_by": "balance"}),
        (f"/cards/{holder.card_id}/reissue", {}),
        (f"/cards/{holder.card_id}/closure", {}),
        (f"/recharges/{holder.card_id}/refunds", {"reason": "x"}),
    ):
        for key in (None, "short", "x" * 65, "has a space inside", "é" * 16):
            headers = {"Authorization": f"Bearer {caller.access_token}"}
            sent: dict[Any, Any] = {**headers, **({"Idempotency-Key": key} if key else {})}
            raw = {name.encode(): value.encode("latin-1") for name, value in sent.items()}
            answer = await client.post(f"/v1/citizen{path}", headers=raw, json=body)
            assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), (path, key)


async def test_a_pass_is_bought_once_per_number(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    caller = await make_caller(services, client, holder)
    pass_type, _ = await make_pass_type(services, [], price_fen=1_000)
    body = {
        "card_id": str(holder.card_id),
        "pass_type_id": str(pass_type.id),
        "pay_by": "balance",
    }
    first = await caller.call("POST", "/passes", key=KEY, json=body)
    clock.go(seconds=500)
    same(first, await caller.call("POST", "/passes", key=KEY, json=body))
    assert (await caller.card())["balance_fen"] == 4_000
    other = await make_pass_type(services, [], price_fen=1_000)
    changed = {**body, "pass_type_id": str(other[0].id)}
    reused = await caller.call("POST", "/passes", key=KEY, json=changed)
    assert (reused.status_code, reused.json()["code"]) == (422, "request-number-reused")


async def test_a_refusal_repeats_itself_even_when_it_could_now_be_done(
    services: Services, client: httpx.AsyncClient
) -> None:
    holder = await make_holder(services)
    caller = await make_caller(services, client, holder)
    pass_type, _ = await make_pass_type(services, [], price_fen=1_000)
    body = {
        "card_id": str(holder.card_id),
        "pass_type_id": str(pass_type.id),
        "pay_by": "balance",
    }
    first = await caller.call("POST", "/passes", key=KEY, json=body)
    assert (first.status_code, first.json()["code"]) == (409, "insufficient-balance")
    await make_recharge(services, holder.citizen_id, holder.card_id, amount_fen=5_000)
    again = await caller.call("POST", "/passes", key=KEY, json=body)
    assert again.status_code == 409
    assert again.headers["idempotency-replayed"] == "true"
    told = [{**one.json(), "request_id": ""} for one in (first, again)]
    assert told[0] == told[1]
    fresh = await caller.call("POST", "/passes", key=KEY + "2", json=body)
    assert fresh.status_code == 201


async def test_numbers_belong_to_their_owner(services: Services, client: httpx.AsyncClient) -> None:
    pass_type, _ = await make_pass_type(services, [], price_fen=1_000)
    for _ in range(2):
        holder = await make_holder(services, balance_fen=1_000)
        caller = await make_caller(services, client, holder)
        body = {
            "card_id": str(holder.card_id),
            "pass_type_id": str(pass_type.id),
            "pay_by": "balance",
        }
        assert (await caller.call("POST", "/passes", key=KEY, json=body)).status_code == 201


async def test_a_reissue_repeats_its_answer_after_the_card_has_changed(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=700)
    caller = await make_caller(services, client, holder)
    await caller.call("PUT", "/me/payment-pin", json={"pin": "204816"})
    await caller.step_up("204816")
    path = f"/cards/{holder.card_id}/reissue"
    first = await caller.call("POST", path, key=KEY, json={})
    await caller.call("POST", f"/cards/{holder.card_id}/loss", json={})
    same(first, await caller.call("POST", path, key=KEY, json={}))
    assert (await caller.card())["state"] == "lost"
    async with services.db.begin() as session:
        media = await session.scalar(text("SELECT count(*) FROM cards_medium"))
    assert media == 2


async def test_a_charge_and_its_refund_repeat_their_answers(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    machine = (await make_shop(services)).machine(client, clock)
    asked = {"order_no": "ORDER0001", "code": holder.phone.code_at(clock()), "amount_fen": 700}
    first = await machine.call("POST", "/v1/merchant/charges", asked)
    # Refunded meanwhile: the retry still gets the charge as it was made.
    path = f"/v1/merchant/charges/{first.json()['id']}/refunds"
    back = {"refund_no": "REFUND001", "amount_fen": 300, "reason": "x"}
    refund = await machine.call("POST", path, back)
    more = await machine.call("POST", path, {**back, "refund_no": "REFUND002"})
    clock.go(days=3)
    same(first, await machine.call("POST", "/v1/merchant/charges", asked))
    same(refund, await machine.call("POST", path, back))
    assert (refund.json()["refunded_fen"], more.json()["refunded_fen"]) == (300, 600)
    reused = await machine.call("POST", path, {**back, "amount_fen": 301})
    assert (reused.status_code, reused.json()["code"]) == (422, "request-number-reused")
    exceeds = {**back, "refund_no": "REFUND003", "amount_fen": 101}
    refused = [await machine.call("POST", path, exceeds) for _ in range(2)]
    assert [one.json()["code"] for one in refused] == ["refund-exceeds"] * 2
    assert [one.headers.get("idempotency-replayed") for one in refused] == [None, "true"]


async def test_a_declined_charge_stays_declined(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services)
    machine = (await make_shop(services)).machine(client, clock)
    asked = {"order_no": "ORDER0001", "code": holder.phone.code_at(clock()), "amount_fen": 700}
    first = await machine.call("POST", "/v1/merchant/charges", asked)
    assert first.json()["state"] == "declined"
    same(first, await machine.call("POST", "/v1/merchant/charges", asked))


async def test_a_cancelled_order_is_never_charged(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    machine = (await make_shop(services)).machine(client, clock)
    path, order = "/v1/merchant/charges/cancel-if-absent", {"order_no": "ORDER0001"}
    first = await machine.call("POST", path, order)
    assert (first.status_code, first.json()["state"]) == (201, "cancelled")
    same(first, await machine.call("POST", path, order))
    late = {**order, "code": holder.phone.code_at(clock()), "amount_fen": 700}
    refused = await machine.call("POST", "/v1/merchant/charges", late)
    assert (refused.status_code, refused.json()["code"]) == (409, "order-cancelled")
    # And the code that came with it was not used up.
    fresh = await machine.call("POST", "/v1/merchant/charges", {**late, "order_no": "ORDER0002"})
    assert fresh.json()["state"] == "succeeded"
    known = await machine.call("POST", path, {"order_no": "ORDER0002"})
    assert (known.status_code, known.json()["id"]) == (200, fresh.json()["id"])


async def test_a_scan_repeats_its_answer(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services)
    machine = (await make_gate(services)).machine(client, clock)
    asked = {
        "scan_id": secrets.token_hex(8),
        "direction": "in",
        "credential": {"kind": "code", "value": holder.phone.code_at(clock())},
        "scanned_at": clock().isoformat(),
    }
    first = await machine.call("POST", "/v1/gate/admissions", asked)
    clock.go(seconds=40)
    same(first, await machine.call("POST", "/v1/gate/admissions", asked), status=200)
    other = await machine.call("POST", "/v1/gate/admissions", {**asked, "direction": "out"})
    assert (other.status_code, other.json()["code"]) == (422, "request-number-reused")
