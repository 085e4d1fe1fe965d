"""Operators' passwords, payment PINs and one-time codes (登录密码、支付密码、动态口令).

Hashing costs tens to hundreds of milliseconds of CPU and much memory, so it runs in threads, two
at a time; passwords and PINs wait in lines of their own, so that a flood of sign-ins does not
stop payments. Tries are counted by the callers. Source: RFC 9106, RFC 6238;
docs: security and reliability, A1.
"""

import hmac
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from functools import partial
from itertools import pairwise
from typing import Final, TypeVar

import pyotp
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from anyio.to_thread import run_sync
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError

T = TypeVar("T")

PASSWORD_CHARACTERS_MAX: Final = 256
TOTP_STEP_SECONDS: Final = 30
TOTP_WINDOW_STEPS: Final = 1
"""How many steps a code may be early or late."""

_AT_ONCE: Final = 2
_DISTINCT_DIGITS_MIN: Final = 3
_SIX_DIGITS: Final = re.compile("[0-9]{6}")

_PASSWORDS: Final = PasswordHasher(time_cost=3, memory_cost=65_536, parallelism=4)
# A PIN is checked in the middle of a payment; its strength is the pepper, which is not in the
# database, and the five tries.
_PINS: Final = PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)

_password_line: Final = RunVar[CapacityLimiter]("password_line")
_pin_line: Final = RunVar[CapacityLimiter]("pin_line")


class PinProblem(StrEnum):
    """Why a PIN is not accepted as a new one. A closed set."""

    NOT_SIX_DIGITS = "not-six-digits"
    REPEATED = "repeated"
    SEQUENTIAL = "sequential"


async def hash_password(password: str) -> str:
    """Return what is stored for a password: argon2id, 64 MiB, 3 passes, 4 lanes.

    A password has 1 to `PASSWORD_CHARACTERS_MAX` characters, counted by the caller's Struct.
    """
    assert 1 <= len(password) <= PASSWORD_CHARACTERS_MAX
    return await _in_line(_password_line, partial(_PASSWORDS.hash, _normal(password)))


async def verify_password(password: str, password_hash: str) -> bool:
    """Return whether a password is the one that was hashed.

    For a login that does not exist, give a hash of the same cost that nothing matches: then
    the answer takes as long as any other.

    Raises:
        argon2.exceptions.InvalidHashError: `password_hash` is no hash, a fault.
    """
    if len(password) > PASSWORD_CHARACTERS_MAX:
        return False
    check = partial(_matches, _PASSWORDS, password_hash, _normal(password))
    return await _in_line(_password_line, check)


def needs_new_hash(password_hash: str) -> bool:
    """Return whether a password was hashed at another cost than today's."""
    return _PASSWORDS.check_needs_rehash(password_hash)


def pin_problem(pin: str) -> PinProblem | None:
    """Return why a new PIN is too easy to guess, or None.

    Refused are: anything but six ASCII digits; fewer than three different digits or one group
    twice (000000, 121212, 123123); steps of one up or down, singly or in pairs (123456, 890123,
    654321, 112233): 3560 of the million.
    """
    if _SIX_DIGITS.fullmatch(pin) is None:
        return PinProblem.NOT_SIX_DIGITS
    if len(set(pin)) < _DISTINCT_DIGITS_MIN or pin[:3] == pin[3:]:
        return PinProblem.REPEATED
    is_in_pairs = pin[::2] == pin[1::2]
    if _is_sequence(pin[::2] if is_in_pairs else pin):
        return PinProblem.SEQUENTIAL
    return None


async def hash_pin(pin: str, *, pepper: bytes) -> str:
    """Return what is stored for a payment PIN: peppered, then argon2id, 19 MiB, 2 passes.

    A million PINs are soon tried by whoever has the database; without the pepper they cannot be.
    """
    return await _in_line(_pin_line, partial(_PINS.hash, _peppered(pin, pepper)))


async def verify_pin(pin: str, pin_hash: str, *, pepper: bytes) -> bool:
    """Return whether a PIN is the one that was hashed.

    Raises:
        argon2.exceptions.InvalidHashError: `pin_hash` is no hash, a fault.
    """
    check = partial(_matches, _PINS, pin_hash, _peppered(pin, pepper))
    return await _in_line(_pin_line, check)


def new_totp_secret() -> str:
    """Return 160 random bits in base32, for a new authenticator."""
    return pyotp.random_base32()


def totp_step(secret: str, code: str, *, now: datetime) -> int | None:
    """Return the time step (of 30 s since 1970) that a one-time code belongs to, or None.

    The code may be one step early or late. The caller keeps the step and refuses a code whose
    step is not above the last one kept: so a code works once (RFC 6238 section 5.2).
    """
    if _SIX_DIGITS.fullmatch(code) is None:
        return None
    totp = pyotp.TOTP(secret, interval=TOTP_STEP_SECONDS)
    current = int(now.timestamp()) // TOTP_STEP_SECONDS
    # Oldest first: should two steps share a code, a used one must not pass for the newer.
    for step in range(current - TOTP_WINDOW_STEPS, current + TOTP_WINDOW_STEPS + 1):
        if hmac.compare_digest(totp.generate_otp(step), code):
            return step
    return None


async def _in_line(line: RunVar[CapacityLimiter], work: Callable[[], T]) -> T:
    limiter = line.get(None)
    if limiter is None:
        # One per event loop, made in it: a limiter does not live across loops.
        limiter = CapacityLimiter(_AT_ONCE)
        line.set(limiter)
    return await run_sync(work, limiter=limiter)


def _matches(hasher: PasswordHasher, stored: str, given: str | bytes) -> bool:
    try:
        return hasher.verify(stored, given)
    except VerifyMismatchError:
        return False


def _normal(password: str) -> str:
    # Keyboards differ in how they compose a letter or widen a digit; the password is the same.
    return unicodedata.normalize("NFKC", password)


def _peppered(pin: str, pepper: bytes) -> bytes:
    return hmac.digest(pepper, pin.encode(), "sha256")


def _is_sequence(digits: str) -> bool:
    steps = {(int(after) - int(before)) % 10 for before, after in pairwise(digits)}
    return steps in ({1}, {9})
