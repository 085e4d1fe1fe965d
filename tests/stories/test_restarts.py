"""A server that is killed in the middle of a day and started again has forgotten nothing."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import httpx
import pytest

from api.clock import utc_now
from api.services import open_services
from api.settings import read_settings
from tests.conftest import SCHEMA
from tests.makers import make_customer, make_shop
from tests.serving import client_of, environment_of, free_port
from tests.simulators.running import REPOSITORY, Simulators
from tests.stories.telling import charge, new_code, open_recharge, tell, until
from wallet import invariants

START_SECONDS = 40


@asynccontextmanager
async def running(
    environment: dict[str, str], command: str, folder: Path
) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a process of ours until the block ends."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with (folder / f"{command}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "api.cli",
            command,
            cwd=folder,
            env={**inherited, "PYTHONPATH": str(REPOSITORY), **environment},
            stdout=log,
            stderr=log,
        )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()


async def is_ready(environment: dict[str, str]) -> None:
    """Wait until the server says that it is ready."""
    began = monotonic()
    url = f"http://127.0.0.1:{environment['YUANKA_MANAGEMENT_PORT']}/readyz"
    async with httpx.AsyncClient(trust_env=False) as http:
        while True:
            assert monotonic() - began < START_SECONDS, "it did not start"
            try:
                if (await http.get(url)).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)


@pytest.mark.xdist_group("simulators")
async def test_a_killed_server_has_forgotten_nothing(
    database_url: str, simulators: Simulators, tmp_path: Path
) -> None:
    environment = environment_of(
        simulators, database_url=database_url, schema=SCHEMA, folder=tmp_path, port=free_port()
    )
    environment["YUANKA_MANAGEMENT_PORT"] = str(free_port())
    settings = read_settings(environment)
    async with (
        open_services(settings, utc_now) as services,
        client_of(settings.port) as http,
    ):
        async with running(environment, "serve", tmp_path) as server:
            await is_ready(environment)
            shop = (await make_shop(services)).machine(http, utc_now)
            ann = await make_customer(services, http)
            first = await open_recharge(ann, "wechat_pay", 3_000)
            # It is not there when the payer pays; the provider goes on telling it.
            server.send_signal(signal.SIGKILL)
            await server.wait()
        await tell(simulators, "pay", out_trade_no=first["out_trade_no"])
        async with running(environment, "serve", tmp_path) as server:
            await is_ready(environment)

            async def is_credited() -> bool:
                return bool((await ann.card())["balance_fen"] == 3_000)

            # The session, the card and the phone's credentials are all as they were.
            await until(is_credited, seconds=20)
            code, order_no = await new_code(ann), secrets.token_hex(8)
            asked = {"order_no": order_no, "code": code, "amount_fen": 1_000}
            taken = await shop.call("POST", "/v1/merchant/charges", asked)
            assert taken.json()["state"] == "succeeded"
            server.send_signal(signal.SIGKILL)
            await server.wait()
        async with running(environment, "serve", tmp_path) as server:
            await is_ready(environment)
            again = await shop.call("POST", "/v1/merchant/charges", asked)
            assert (again.status_code, again.content) == (200, taken.content)
            replayed = await charge(shop, code, 500)
            assert (replayed["state"], replayed["reason"]) == ("declined", 305)
            assert (await ann.card())["balance_fen"] == 2_000
            server.send_signal(signal.SIGTERM)
            # Asked to stop, it ends in order, and then as the signal says.
            assert await asyncio.wait_for(server.wait(), 15) in {0, -signal.SIGTERM}
        broken = [proof for proof in await invariants.prove(services.db) if proof.faults]
        assert broken == []
