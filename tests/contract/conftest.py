"""A server in a thread of its own, and callers of every audience for the fuzzer."""

import asyncio
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import asyncpg
import httpx
import pytest
import requests
from anyio.from_thread import BlockingPortal, start_blocking_portal
from requests.auth import AuthBase

from api.clock import utc_now
from api.commands.callers import Citizen, Machine, OperatorBrowser
from api.commands.making import make_recharge
from identity import access_tokens, signatures
from identity.people import step_ups
from tests.conftest import SCHEMA, url_of
from tests.documented import operation_of
from tests.makers import (
    make_caller,
    make_gate,
    make_holder,
    make_operator,
    make_pass_type,
    make_shop,
)
from tests.serving import Live, environment_of, free_port, serving
from tests.simulators.running import Simulators


class Town(NamedTuple):
    """Machines, and things of theirs, that no test can use up."""

    merchant: tuple[str, str]
    gate: tuple[str, str]
    ids: dict[str, str]


class Known:
    """Who may call in one test, and things that they may call about."""

    def __init__(self, portal: BlockingPortal, live: Live, town: Town, caller: Citizen) -> None:
        self._portal, self._live, self._town, self._caller = portal, live, town, caller
        self._operator: dict[str, str] = {}
        self.url = str(live.http.base_url)
        self.ids = {
            **town.ids,
            "card_id": caller.card_id,
            "code": caller.show_code(),
            "value": caller.show_code(),
        }
        self.turns = count()
        """Counts the examples of one operation."""

    def auth_for(self, method: str, path: str) -> AuthBase:
        """Return what signs a request as its operation demands."""
        operation = operation_of(method, path)
        schemes = [*operation.get("security", [{}])[0]] if operation else []
        return _Auth(self, schemes[0] if schemes else "")

    def citizen(self) -> dict[str, str]:
        """Return the headers of a signed-in citizen who proved it again."""
        return {
            "Authorization": f"Bearer {self._caller.access_token}",
            "Yuanka-Step-Up": self._caller.step_up_token,
        }

    def operator(self) -> dict[str, str]:
        """Return the headers of an operator, who signs in when first asked for."""
        if not self._operator:
            self._operator = self._portal.call(_operator, self._live)
        return self._operator

    def signed(self, request: requests.PreparedRequest, scheme: str) -> dict[str, str]:
        """Return the headers that sign a request."""
        keyid, pem = self._town.merchant if scheme == "merchant" else self._town.gate
        parts = urlsplit(str(request.url))
        body = request.body or b""
        assert isinstance(body, str | bytes)
        return signatures.sign(
            signatures.load_private_key(pem.encode()),
            keyid=keyid,
            method=str(request.method),
            authority=parts.netloc,
            path=parts.path,
            query=parts.query,
            body=body.encode() if isinstance(body, str) else body,
            now=utc_now(),
        )


class _Auth(AuthBase):
    def __init__(self, known: Known, scheme: str) -> None:
        self._known, self._scheme = known, scheme

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._scheme == "citizen":
            request.headers.update(self._known.citizen())
        elif self._scheme == "operator":
            request.headers.update(self._known.operator())
        elif self._scheme:
            request.headers.update(self._known.signed(request, self._scheme))
        return request


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """Run a loop beside the tests, which the fuzzer keeps busy waiting."""
    with start_blocking_portal("asyncio") as opened:
        yield opened


@pytest.fixture(scope="session")
def contract_database(server_url: str, template: str, worker_id: str) -> Iterator[str]:
    """Return the address of a database for all tests of the contract."""
    name = f"contract_{worker_id}"

    async def run(*statements: str) -> None:
        connection = await asyncpg.connect(server_url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    asyncio.run(run(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield url_of(server_url, name)
    asyncio.run(run(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def served(
    portal: BlockingPortal,
    contract_database: str,
    simulators: Simulators,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Live]:
    """Serve one database to all tests of the contract."""
    environment = environment_of(
        simulators,
        database_url=contract_database,
        schema=SCHEMA,
        folder=tmp_path_factory.mktemp("contract"),
        port=free_port(),
    )
    with portal.wrap_async_context_manager(serving(environment, simulators)) as live:
        yield live


@pytest.fixture(scope="session")
def town(portal: BlockingPortal, served: Live) -> Town:
    """Make a shop and a gate, and what happened there."""
    return portal.call(_town, served)


@pytest.fixture
def known(portal: BlockingPortal, served: Live, town: Town) -> Known:
    """Make a person of this test's own: operations end sessions and close cards."""
    return Known(portal, served, town, portal.call(_caller, served))


async def _caller(live: Live) -> Citizen:
    services = live.services
    holder = await make_holder(services, balance_fen=5_000)
    caller = await make_caller(services, live.http, holder)
    sid = access_tokens.read(
        caller.access_token, services.token_keys, audience="citizen", now=utc_now()
    ).session_id
    async with services.db.begin() as session:
        caller.step_up_token = step_ups.open_step_up(
            session, holder.citizen_id, sid=sid, way="pin", now=utc_now()
        )
    return caller


async def _town(live: Live) -> Town:
    services, http = live.services, live.http
    holder = await make_holder(services, balance_fen=5_000)
    caller = await make_caller(services, http, holder)
    shop, gate = await make_shop(services), await make_gate(services)
    pass_type, _ = await make_pass_type(services, [gate.park.id], price_fen=10)
    recharge_id, _ = await make_recharge(
        services, holder.citizen_id, holder.card_id, amount_fen=100
    )
    asked = {"order_no": "ORDER0001", "code": caller.show_code(), "amount_fen": 100}
    charge = await _body(shop.machine(http, utc_now), "/v1/merchant/charges", asked)
    scan = {
        "scan_id": "SCAN0001",
        "direction": "out",
        "credential": {"kind": "code", "value": caller.show_code()},
        "scanned_at": utc_now().isoformat(),
    }
    admission = await _body(gate.machine(http, utc_now), "/v1/gate/admissions", scan)
    return Town(
        (shop.keyid, shop.private_key_pem),
        (gate.keyid, gate.private_key_pem),
        {
            "recharge_id": str(recharge_id),
            "charge_id": charge["id"],
            "admission_id": admission["admission_id"],
            "pass_type_id": str(pass_type.id),
        },
    )


async def _body(machine: Machine, path: str, asked: dict[str, Any]) -> Any:
    answer = await machine.call("POST", path, asked)
    assert answer.is_success, answer.text
    return answer.json()


async def _operator(live: Live) -> dict[str, str]:
    who = await make_operator(live.services)
    async with httpx.AsyncClient(base_url=live.http.base_url, trust_env=False) as http:
        browser = OperatorBrowser(http, utc_now)
        assert await browser.sign_in(who)
        cookie = http.cookies["yuanka_operator"]
        return {"Cookie": f"yuanka_operator={cookie}", "X-CSRF-Token": browser._csrf_token}
