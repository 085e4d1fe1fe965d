"""What the stories share: gates, tills and phones as their owners use them, and waiting."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import Any

from api.clock import utc_now
from api.commands.callers import Citizen, Machine, body_of
from tests.serving import Live
from tests.simulators.running import Simulators

PIN = "204816"


async def until(is_so: Callable[[], Awaitable[object]], *, seconds: float = 15) -> None:
    """Wait until something is so that happens in another process."""
    began = monotonic()
    while not await is_so():
        assert monotonic() - began < seconds, "it did not happen"
        await asyncio.sleep(0.03)


async def tell(simulators: Simulators, action: str, **told: Any) -> dict[str, Any]:
    """Tell the simulators something; return what they answer."""
    answer = await asyncio.to_thread(simulators.tell, action, **told)
    assert answer.is_success, answer.text
    return dict(answer.json()) if answer.content else {}


async def new_code(person: Citizen) -> str:
    """Return a code that was not used, waiting no longer than it must for its slot."""
    assert person.phone
    while person.last_slot + 1 > person.phone.slot_at(utc_now()) + 2:  # noqa: ASYNC110  # it is time that passes
        await asyncio.sleep(0.5)
    return person.show_code()


async def charge(till: Machine, code: str, amount_fen: int) -> dict[str, Any]:
    """Scan a code at a till."""
    asked = {"order_no": secrets.token_hex(8), "code": code, "amount_fen": amount_fen}
    return dict(body_of(await till.call("POST", "/v1/merchant/charges", asked), 201))


async def scan(gate: Machine, code: str, *, direction: str = "in") -> dict[str, Any]:
    """Scan a code at a gate."""
    asked = {
        "scan_id": secrets.token_hex(8),
        "direction": direction,
        "credential": {"kind": "code", "value": code},
        "scanned_at": utc_now().isoformat(),
    }
    return dict(body_of(await gate.call("POST", "/v1/gate/admissions", asked), 200))


async def open_recharge(person: Citizen, channel: str, amount_fen: int) -> dict[str, Any]:
    """Open a recharge, not yet paid."""
    body = {"card_id": person.card_id, "amount_fen": amount_fen, "channel": channel}
    answer = await person.call("POST", "/recharges", key=secrets.token_hex(16), json=body)
    return dict(body_of(answer, 201))


async def recharge(live: Live, person: Citizen, channel: str, amount_fen: int) -> dict[str, Any]:
    """Recharge a card: the payer pays, and the provider's notice credits it."""
    before_fen = (await person.card())["balance_fen"]
    opened = await open_recharge(person, channel, amount_fen)
    await tell(live.simulators, "pay", out_trade_no=opened["out_trade_no"])

    async def is_credited() -> bool:
        return bool((await person.card())["balance_fen"] == before_fen + amount_fen)

    await until(is_credited)
    return opened
