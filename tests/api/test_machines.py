"""Signed calls: what was changed, is old, or is somebody else's, is refused and does nothing."""

import json
import random
import secrets
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import NamedTuple

import httpx
import pytest
from sqlalchemy import text

from api.commands.callers import Machine
from api.services import Services
from identity import machine_keys
from tests.conftest import SetClock
from tests.makers import GateAt, Holder, Shop, make_gate, make_holder, make_shop

CHARGES = "/v1/merchant/charges"
ADMISSIONS = "/v1/gate/admissions"
FLIPS_OF_A_BODY = 60

Headers = list[tuple[str, str]]


class Town(NamedTuple):
    """A holder, a shop and a gate, and what they can be asked."""

    services: Services
    client: httpx.AsyncClient
    clock: SetClock
    holder: Holder
    shop: Shop
    gate: GateAt

    def charge(self) -> bytes:
        """Return the body of a charge that would succeed."""
        code = self.holder.phone.code_at(self.clock())
        asked = {"order_no": secrets.token_hex(8), "code": code, "amount_fen": 100}
        return json.dumps(asked).encode()

    def scan(self) -> bytes:
        """Return the body of a scan."""
        asked = {
            "scan_id": secrets.token_hex(8),
            "direction": "in",
            "credential": {"kind": "code", "value": self.holder.phone.code_at(self.clock())},
            "scanned_at": self.clock().isoformat(),
        }
        return json.dumps(asked).encode()

    async def rows(self) -> dict[str, int]:
        """Return how many rows each table has."""
        async with self.services.db.begin() as session:
            tables = await session.scalars(
                text("SELECT tablename FROM pg_tables WHERE schemaname = current_schema()")
            )
            counted = {
                table: await session.scalar(text(f'SELECT count(*) FROM "{table}"'))
                for table in list(tables)
            }
        return {table: rows or 0 for table, rows in counted.items()}


@pytest.fixture
async def town(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> AsyncIterator[Town]:
    """Hold every row count against what it was: refused calls must leave no trace."""
    made = Town(
        services,
        client,
        clock,
        await make_holder(services, balance_fen=5_000),
        await make_shop(services),
        await make_gate(services),
    )
    before = await made.rows()
    yield made
    assert await made.rows() == before


def is_refused(answer: httpx.Response, *, where: str) -> None:
    """Hold an answer against what an unsigned call gets."""
    assert answer.status_code in {400, 401}, f"{where}: {answer.status_code} {answer.text}"
    assert answer.headers["content-type"] == "application/problem+json", where


async def test_a_call_with_one_byte_changed_is_not_its_signers(town: Town) -> None:
    rng = random.Random(7)
    machine = town.shop.machine(town.client, town.clock)
    body = town.charge()
    for place in sorted(rng.sample(range(len(body)), FLIPS_OF_A_BODY)):
        flipped = bytearray(body)
        flipped[place] ^= 1 << rng.randrange(8)
        request = machine.signed("POST", CHARGES, body)
        changed = town.client.build_request(
            "POST", CHARGES, content=bytes(flipped), headers=_signature(request)
        )
        is_refused(await town.client.send(changed), where=f"body {place}")


async def test_no_byte_of_a_signature_header_can_change(town: Town) -> None:
    rng = random.Random(8)
    request = town.shop.machine(town.client, town.clock).signed("POST", CHARGES, town.charge())
    for name, value in _signature(request).items():
        for place in range(len(value)):
            other = chr(ord(value[place]) ^ (1 << rng.randrange(5)))
            if not other.isprintable() or not other.isascii():
                other = "x"
            if other == value[place]:
                continue
            headers = {**_signature(request), name: value[:place] + other + value[place + 1 :]}
            changed = town.client.build_request(
                "POST", CHARGES, content=request.content, headers=headers
            )
            is_refused(await town.client.send(changed), where=f"{name} {place} {other!r}")


async def test_method_path_and_query_are_signed(town: Town) -> None:
    machine = town.shop.machine(town.client, town.clock)
    find = machine.signed("GET", f"{CHARGES}?order_no=ORDER0001")
    for path in ("?order_no=ORDER0002", "?order_no=ORDER0001&x=1", "?ORDER_NO=ORDER0001", "?", ""):
        changed = town.client.build_request("GET", CHARGES + path, headers=_signature(find))
        is_refused(await town.client.send(changed), where=path)
    charge = machine.signed("POST", CHARGES, town.charge())
    moved = town.client.build_request(
        "POST", f"{CHARGES}/cancel-if-absent", content=charge.content, headers=_signature(charge)
    )
    is_refused(await town.client.send(moved), where="another path")
    asked = machine.signed("GET", CHARGES)
    posted = town.client.build_request("POST", CHARGES, headers=_signature(asked))
    is_refused(await town.client.send(posted), where="another method")


async def test_the_authority_is_ours_and_not_the_host_header(town: Town) -> None:
    request = town.shop.machine(town.client, town.clock).signed("POST", CHARGES, town.charge())
    elsewhere = httpx.AsyncClient(base_url="http://other.test:8000")
    foreign = Machine(elsewhere, town.shop.keyid, town.shop.private_key_pem, town.clock)
    signed = foreign.signed("POST", CHARGES, request.content)
    changed = town.client.build_request(
        "POST", CHARGES, content=request.content, headers=_signature(signed)
    )
    is_refused(await town.client.send(changed), where="signed for another authority")
    await elsewhere.aclose()


@pytest.mark.parametrize("header", ["Signature", "Signature-Input", "Content-Digest"])
async def test_a_header_is_there_exactly_once(town: Town, header: str) -> None:
    request = town.shop.machine(town.client, town.clock).signed("POST", CHARGES, town.charge())
    once: Headers = list(_signature(request).items())
    twice = [*once, (header, request.headers[header])]
    without = [pair for pair in once if pair[0].lower() != header.lower()]
    joined = [(n, f"{v}, {v}" if n.lower() == header.lower() else v) for n, v in once]
    for headers, status in ((twice, 400), (without, 401), (joined, 400)):
        changed = town.client.build_request(
            "POST", CHARGES, content=request.content, headers=headers
        )
        answer = await town.client.send(changed)
        is_refused(answer, where=f"{header} {headers}")
        assert answer.status_code == status


async def test_a_call_holds_for_a_minute_either_way(town: Town) -> None:
    machine = town.shop.machine(town.client, town.clock)
    for seconds in (61, 3_600, -61, -3_600):
        at = town.clock() - timedelta(seconds=seconds)
        answer = await town.client.send(machine.signed("POST", CHARGES, town.charge(), now=at))
        assert (answer.status_code, answer.json()["code"]) == (401, "clock-skew")
        assert answer.json()["server_time_at"].startswith("2026-11-22T03:30:02")
        assert answer.json()["retryable"] is True
    for seconds in (60, -60):
        at = town.clock() - timedelta(seconds=seconds)
        find = machine.signed("GET", f"{CHARGES}?order_no=ORDER0001", now=at)
        assert (await town.client.send(find)).status_code == 200


async def test_a_key_signs_for_its_owner_only(town: Town) -> None:
    shop, gate = town.shop, town.gate
    forged = Machine(town.client, gate.keyid, shop.private_key_pem, town.clock)
    is_refused(await town.client.send(forged.signed("POST", ADMISSIONS, town.scan())), where="key")
    unknown = Machine(town.client, "merchant-nobody", shop.private_key_pem, town.clock)
    is_refused(await town.client.send(unknown.signed("POST", CHARGES, town.charge())), where="id")
    at_the_till = gate.machine(town.client, town.clock).signed("POST", CHARGES, town.charge())
    is_refused(await town.client.send(at_the_till), where="a gate takes money")
    at_the_gate = shop.machine(town.client, town.clock).signed("POST", ADMISSIONS, town.scan())
    is_refused(await town.client.send(at_the_gate), where="a shop opens a gate")


async def test_a_signature_is_no_sign_in_and_a_token_no_signature(town: Town) -> None:
    machine = town.shop.machine(town.client, town.clock)
    for path in ("/v1/citizen/cards", "/v1/operator/real-name-cases"):
        assert (await machine.call("GET", path)).status_code == 401
    bearer = {"Authorization": "Bearer x"}
    is_refused(await town.client.post(CHARGES, content=b"{}", headers=bearer), where="bearer")
    is_refused(await town.client.get(f"{CHARGES}?order_no=ORDER0001"), where="nothing")


async def test_a_revoked_key_is_refused_within_five_seconds(town: Town) -> None:
    machine = town.shop.machine(town.client, town.clock)
    find = f"{CHARGES}?order_no=ORDER0001"
    assert (await machine.call("GET", find)).status_code == 200
    async with town.services.db.begin() as session:
        await machine_keys.revoke(session, town.shop.keyid, now=town.clock())
    town.clock.go(seconds=5)
    answer = await machine.call("GET", find)
    assert (answer.status_code, answer.json()["code"]) == (401, "signature-invalid")


async def test_merchants_do_not_see_each_others_charges(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services, balance_fen=5_000)
    ours, theirs = [(await make_shop(services)).machine(client, clock) for _ in range(2)]
    asked = {"order_no": "ORDER0001", "code": holder.phone.code_at(clock()), "amount_fen": 100}
    charge = (await ours.call("POST", CHARGES, asked)).json()
    shown = await theirs.call("GET", f"{CHARGES}/{charge['id']}")
    assert (shown.status_code, shown.json()["code"]) == (404, "not-found")
    found = await theirs.call("GET", f"{CHARGES}?order_no=ORDER0001")
    assert found.json()["items"] == []
    back = {"refund_no": "REFUND001", "amount_fen": 1, "reason": "x"}
    refund = await theirs.call("POST", f"{CHARGES}/{charge['id']}/refunds", back)
    assert refund.status_code == 404
    # The same order number is theirs to use, and their cancelling does not touch ours.
    cancelled = await theirs.call("POST", f"{CHARGES}/cancel-if-absent", {"order_no": "ORDER0001"})
    assert cancelled.json()["state"] == "cancelled"
    again = await ours.call("GET", f"{CHARGES}/{charge['id']}")
    assert (again.json()["state"], again.json()["refunded_fen"]) == ("succeeded", 0)


async def test_a_gate_reports_on_its_own_admissions_only(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services)
    ours, theirs = [(await make_gate(services)).machine(client, clock) for _ in range(2)]
    asked = {
        "scan_id": "SCAN0001",
        "direction": "out",
        "credential": {"kind": "code", "value": holder.phone.code_at(clock())},
        "scanned_at": clock().isoformat(),
    }
    admission = (await ours.call("POST", ADMISSIONS, asked)).json()
    told = {"result": "passed", "at": clock().isoformat()}
    path = f"{ADMISSIONS}/{admission['admission_id']}/result"
    refused = await theirs.call("POST", path, told)
    assert (refused.status_code, refused.json()["code"]) == (404, "not-found")


def _signature(request: httpx.Request) -> dict[str, str]:
    """Return the headers that a signer sent."""
    names = ("Content-Digest", "Signature-Input", "Signature")
    return {name: request.headers[name] for name in names if name in request.headers}


async def test_a_suspended_merchant_charges_nobody_five_seconds_later(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder, shop = await make_holder(services, balance_fen=5_000), await make_shop(services)
    machine = shop.machine(client, clock)

    async def charge(order_no: str, *, slots_ahead: int) -> tuple[str, int]:
        code = holder.phone.code_at(clock(), slots_ahead=slots_ahead)
        asked = {"order_no": order_no, "code": code, "amount_fen": 100}
        answer = (await machine.call("POST", CHARGES, asked)).json()
        return answer["state"], answer["reason"]

    assert await charge("order-1", slots_ahead=0) == ("succeeded", 0)
    async with services.db.begin() as session:
        await session.execute(text("UPDATE merchants_merchant SET state = 'suspended'"))
    clock.go(seconds=5.1)
    assert await charge("order-2", slots_ahead=1) == ("declined", 606)
    async with services.db.begin() as session:
        await session.execute(text("UPDATE merchants_merchant SET state = 'active'"))
    clock.go(seconds=5.1)
    assert await charge("order-3", slots_ahead=1) == ("declined", 305), "a stored no used the code"
    assert await charge("order-4", slots_ahead=2) == ("succeeded", 0)
