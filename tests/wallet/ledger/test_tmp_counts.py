"""What one request costs the database, through the whole route: the design's promise, counted."""

from collections.abc import AsyncIterator

import asyncpg
import httpx
import msgspec
import pytest
from asyncpg.exceptions import ObjectNotInPrerequisiteStateError

from api.services import Services
from api.settings import Settings
from tests.conftest import SetClock
from tests.makers import make_gate, make_holder, make_pass_type, make_shop
from tests.wallet.ledger.wire import Wire, laid
from tests.wallet.verbs import buy

CHARGE_MAX, ADMISSION_MAX = 8, 6
NOT_COUNTED = ("BEGIN", "COMMIT")

COUNTED = """
SELECT query, sum(calls)::int AS calls FROM public.pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND query !~* '^(begin|commit|set |show )' AND query NOT LIKE '%pg_stat_statements%'
GROUP BY query HAVING sum(calls) > 0"""


@pytest.fixture
async def wire(database_url: str) -> AsyncIterator[Wire]:
    async with laid(database_url) as opened:
        yield opened


@pytest.fixture
def settings(settings: Settings, wire: Wire) -> Settings:
    """Return settings of a process at the end of the wire."""
    return msgspec.structs.replace(settings, database_url=wire.url)


class Server:
    """What the server itself has counted in this test's database."""

    def __init__(self, connection: asyncpg.Connection, *, counts: bool) -> None:
        self._connection, self.counts = connection, counts

    async def statements(self) -> dict[str, int]:
        if not self.counts:
            return {}
        return {row["query"]: row["calls"] for row in await self._connection.fetch(COUNTED)}


@pytest.fixture
async def server(database_url: str) -> AsyncIterator[Server]:
    connection = await asyncpg.connect(database_url)
    await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements SCHEMA public")
    counter = Server(connection, counts=True)
    try:
        await counter.statements()
    except ObjectNotInPrerequisiteStateError:
        # A server that does not preload the library; the wire counts all the same.
        counter.counts = False
    yield counter
    await connection.close()


async def _statements_of(
    wire: Wire, server: Server, sent: httpx.Request, client: httpx.AsyncClient
) -> tuple[dict[str, object], list[str], dict[str, int]]:
    """Send one request; return its answer, what went over the wire, and what the server ran."""
    before = await server.statements()
    wire.statements.clear()
    answer = await client.send(sent)
    passed = [one for one in wire.statements if not one.startswith(NOT_COUNTED)]
    after = await server.statements()
    ran = {query: calls - before.get(query, 0) for query, calls in after.items()}
    return answer.json(), passed, {query: calls for query, calls in ran.items() if calls}


async def test_a_charge_takes_at_most_eight_statements(
    services: Services, client: httpx.AsyncClient, clock: SetClock, wire: Wire, server: Server
) -> None:
    holder, shop = await make_holder(services, balance_fen=10_000), await make_shop(services)
    machine = shop.machine(client, clock)
    for order_no in ("warm0001", "order0001"):
        clock.go(seconds=15)
        body = {"order_no": order_no, "code": holder.phone.code_at(clock()), "amount_fen": 5}
        sent = machine.signed("POST", "/v1/merchant/charges", msgspec.json.encode(body))
        # A busy merchant's key is read again every few seconds, not for every charge.
        await services.keys.find(shop.keyid, now=clock())
        answer, passed, ran = await _statements_of(wire, server, sent, client)
        assert answer["state"] == "succeeded"
    print(*passed, sep="\n# "); listed = "\n".join(f"- {one[:90]}" for one in passed)
    assert len(passed) <= CHARGE_MAX, f"a charge took {len(passed)} statements:\n{listed}"
    assert not server.counts or sum(ran.values()) == len(passed), (ran, passed)


async def test_an_admission_takes_at_most_six_statements(
    services: Services, client: httpx.AsyncClient, clock: SetClock, wire: Wire, server: Server
) -> None:
    holder, gate = await make_holder(services, balance_fen=10_000), await make_gate(services)
    await buy(services, holder, await make_pass_type(services, [gate.park.id]))
    machine = gate.machine(client, clock)
    for scan_id in ("warm0001", "scan0001"):
        clock.go(seconds=15)
        body = {
            "scan_id": scan_id,
            "direction": "in",
            "credential": {"kind": "code", "value": holder.phone.code_at(clock())},
            "scanned_at": clock(),
        }
        sent = machine.signed("POST", "/v1/gate/admissions", msgspec.json.encode(body))
        # Likewise a busy gate, its key and its park.
        await services.keys.find(gate.keyid, now=clock())
        await services.gates.find(gate.gate_id, now=clock())
        answer, passed, ran = await _statements_of(wire, server, sent, client)
        assert answer["decision"] == "allow"
    print(*passed, sep="\n# "); listed = "\n".join(f"- {one[:90]}" for one in passed)
    assert len(passed) <= ADMISSION_MAX, f"an admission took {len(passed)} statements:\n{listed}"
    assert not server.counts or sum(ran.values()) == len(passed), (ran, passed)
