"""Acts of the tour (动作): what a person, a till or a gate does in one go, and what comes of it.

Each goes through the API alone, and raises `NotHeld` where another answer comes than must.
"""

import asyncio
import secrets
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import monotonic
from typing import Any

import httpx

from api.clock import utc_now
from api.commands.access import Access, OperatorAccess
from api.commands.callers import TOTP_SECONDS, Citizen, Machine, OperatorBrowser, body_of
from api.commands.specimen import make_specimen

WAIT_SECONDS = 20


class NotHeld(Exception):
    """A step did not do what it must."""


def hold(claim: object, says: str) -> None:
    """Go on only if the claim is true.

    Raises:
        NotHeld: it is not; `says` is what should have held.
    """
    if not claim:
        raise NotHeld(says)


async def sign_in_operator(
    http: httpx.AsyncClient, access: Access
) -> tuple[OperatorAccess, OperatorBrowser]:
    """Sign in as an operator whose one-time code of the moment was not used yet.

    A code counts once, and one of the next half minute is accepted too; so tours that follow
    each other closely need not wait. The first operator is left to people as long as possible.
    """
    browser = OperatorBrowser(http, utc_now)
    while True:
        for who in reversed(access.operators):
            for ahead in (0, TOTP_SECONDS):
                if await browser.sign_in(who, seconds_ahead=ahead):
                    return who, browser
        await asyncio.sleep(TOTP_SECONDS / 2)


async def submit_real_name(person: Citizen, *, review: bool) -> dict[str, Any]:
    """Hand in a made-up person's name, number and pictures; return what became of it."""
    with tempfile.TemporaryDirectory() as folder:
        made = await asyncio.to_thread(
            make_specimen, Path(folder), review=review, rng=secrets.SystemRandom()
        )
        files = {
            kind: (f"{kind}.jpg", path.read_bytes(), "image/jpeg")
            for kind, path in (
                ("id_front", made.id_front),
                ("id_back", made.id_back),
                ("selfie", made.selfie),
            )
        }
        view: dict[str, Any] = body_of(
            await person.call(
                "POST",
                "/me/real-name",
                data={"name": made.name, "id_number": made.id_number},
                files=files,
            ),
            202,
        )
    return view


async def press_phone_button(control: httpx.AsyncClient, provider: str, name: str) -> str:
    """Return what the phone-number button of the mini-program hands over."""
    if provider == "wechat":
        return f"sim:{name}"
    pressed = await control.post("alipay/phone", json={"code": f"sim:{name}"})
    return pressed.text


async def recharge(
    control: httpx.AsyncClient, person: Citizen, channel: str, amount_fen: int
) -> str:
    """Recharge a card, and see that only the provider's signed notice credits it."""
    before_fen = (await person.card())["balance_fen"]
    opened = body_of(
        await person.call(
            "POST",
            "/recharges",
            key=secrets.token_hex(16),
            json={"card_id": person.card_id, "amount_fen": amount_fen, "channel": channel},
        ),
        201,
    )
    hold((await person.card())["balance_fen"] == before_fen, "no money before it is paid")
    body_of(await control.post("pay", json={"out_trade_no": opened["out_trade_no"]}))

    # The card is watched, not the recharge: asking for that would make us ask the provider.
    async def is_credited() -> bool:
        return bool((await person.card())["balance_fen"] == before_fen + amount_fen)

    began = monotonic()
    await until(is_credited, "the provider's signed notice credits the card")
    took = (monotonic() - began) * 1000
    state = body_of(await person.call("GET", f"/recharges/{opened['id']}"))["state"]
    hold(state == "succeeded", "the recharge says so too")
    return (
        f"{opened['recharge_no']}: {amount_fen} fen credited {took:.0f} ms after the payment,"
        " by the signed notice"
    )


async def take(machine: Machine, order_no: str, code: str, amount_fen: int) -> httpx.Response:
    """Let a merchant charge a code."""
    asked = {"order_no": order_no, "code": code, "amount_fen": amount_fen}
    return await machine.call("POST", "/v1/merchant/charges", asked)


async def be_declined(machine: Machine, code: str, reason: int) -> str:
    """Let a merchant charge a code that must be declined; return the reason with its sentence."""
    charge = body_of(await take(machine, secrets.token_hex(8), code, 100), 201)
    hold(
        charge["state"] == "declined" and charge["reason"] == reason,
        f"declined with {reason}, not {charge['state']} {charge['reason']}",
    )
    return f"{reason} {charge['reason_text']}"


async def scan(gate: Machine, code: str) -> dict[str, Any]:
    """Let a gate ask whether a code may enter."""
    asked = {
        "scan_id": secrets.token_hex(16),
        "direction": "in",
        "credential": {"kind": "code", "value": code},
        "scanned_at": utc_now().isoformat(),
    }
    answer: dict[str, Any] = body_of(await gate.call("POST", "/v1/gate/admissions", asked))
    return answer


async def fresh_code(person: Citizen) -> str:
    """Return a code that was not used, waiting for a slot no longer than it must."""
    assert person.phone
    while person.last_slot + 1 > person.phone.slot_at(utc_now()) + 2:  # noqa: ASYNC110
        await asyncio.sleep(0.5)
    return person.show_code()


async def until(is_so: Callable[[], Awaitable[bool]], says: str) -> None:
    """Wait for what another process does.

    Raises:
        NotHeld: it did not come to pass in time.
    """
    began = monotonic()
    while not await is_so():  # it happens in another process
        hold(monotonic() - began < WAIT_SECONDS, f"{says}, but not within {WAIT_SECONDS} s")
        await asyncio.sleep(0.05)
