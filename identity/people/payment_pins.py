"""Payment PINs (支付密码): six digits, hashed with a pepper, five tries, then a day's rest.

Wrong tries are counted under the row lock of the citizen, so parallel guesses count one by one.
"""

import hmac
from datetime import datetime, timedelta
from uuid import UUID

from identity import passwords
from identity.audit import Actor, record
from identity.kernel import Database, Refusal, Said
from identity.people import citizens

TRIES = 5
LOCK = timedelta(hours=24)


class PinRefused(Refusal):
    """The PIN is wrong."""

    code, status = "pin-wrong", 403
    title = Said("支付密码错误", "The payment PIN is wrong")
    next_step = Said(
        "请重新输入；连续错误 5 次将锁定 24 小时。",
        "Try again; after five wrong tries it is locked for 24 hours.",
    )


class PinLocked(Refusal):
    """Too many wrong tries."""

    code, status = "pin-locked", 403
    title = Said("支付密码已锁定", "The payment PIN is locked")
    next_step = Said("请 24 小时后再试。", "Try again after 24 hours.")


class PinNotSet(Refusal):
    """There is no PIN yet."""

    code, status = "pin-not-set", 409
    title = Said("尚未设置支付密码", "No payment PIN is set")
    next_step = Said("请先设置六位支付密码。", "Set a six-digit payment PIN first.")


class PinWeak(Refusal):
    """The PIN is too easy to guess, or not six digits."""

    code, status = "pin-weak", 422
    title = Said("支付密码过于简单", "The payment PIN is too easy to guess")
    next_step = Said(
        "请设置六位数字，避免重复或连续。",
        "Choose six digits that are neither all alike nor in sequence.",
    )


async def set_pin(
    db: Database,
    citizen_id: UUID,
    pin: str,
    old_pin: str | None,
    *,
    had_pin: bool,
    pepper: bytes,
    now: datetime,
) -> None:
    """Set the first PIN, or change it.

    Args:
        db: the issuer's database.
        citizen_id: whose.
        pin: the new one.
        old_pin: checked where it is given; without it the caller has seen a step-up.
        had_pin: whether the caller found one that this replaces.
        pepper: of the key ring.
        now: the request's instant.

    Raises:
        PinWeak: the new one is easy to guess.
        PinRefused, PinLocked: the old one is wrong, or too often.
    """
    if passwords.pin_problem(pin) is not None:
        raise PinWeak
    if had_pin and old_pin is not None:
        await check(db, citizen_id, old_pin, pepper=pepper, now=now)
    pin_hash = await passwords.hash_pin(pin, pepper=_pepper_of(citizen_id, pepper))
    async with db.begin() as session:
        citizen = await citizens.get(session, citizen_id, for_update=True)
        if citizen.pin_hash is not None and not had_pin:
            # Another phone set the first PIN meanwhile; a first PIN needs no proof, a second does.
            raise PinRefused(tries_left=TRIES - citizen.pin_wrong_count)
        citizen.pin_hash, citizen.pin_wrong_count, citizen.pin_locked_until = pin_hash, 0, None
        record(session, Actor("citizen", citizen_id), "citizen.set_pin", citizen_id, now=now)


async def check(db: Database, citizen_id: UUID, pin: str, *, pepper: bytes, now: datetime) -> None:
    """Go on only if the PIN is right; a wrong one is counted even when the caller gives up.

    The try is counted before the slow hash is computed, and taken back when it was right: so six
    parallel guesses are six tries, and no row lock is held while hashing.

    Raises:
        PinNotSet: there is none.
        PinRefused: it is wrong; `tries_left` says how many are left.
        PinLocked: it was wrong too often.
    """
    async with db.begin() as session:
        citizen = await citizens.get(session, citizen_id, for_update=True)
        if citizen.pin_hash is None:
            raise PinNotSet
        if citizen.pin_locked_until and now < citizen.pin_locked_until:
            raise PinLocked
        if citizen.pin_locked_until:
            citizen.pin_wrong_count, citizen.pin_locked_until = 0, None
        citizen.pin_wrong_count += 1
        if citizen.pin_wrong_count >= TRIES:
            citizen.pin_locked_until = now + LOCK
        tries_left, pin_hash = TRIES - citizen.pin_wrong_count, citizen.pin_hash
    if not await passwords.verify_pin(pin, pin_hash, pepper=_pepper_of(citizen_id, pepper)):
        raise PinRefused(tries_left=tries_left)
    async with db.begin() as session:
        citizen = await citizens.get(session, citizen_id, for_update=True)
        citizen.pin_wrong_count, citizen.pin_locked_until = 0, None


def _pepper_of(citizen_id: UUID, pepper: bytes) -> bytes:
    """Return the pepper of one citizen: a hash moved into another's row opens nothing there."""
    return hmac.digest(pepper, citizen_id.bytes, "sha256")
