"""Passwords, payment PINs and one-time codes."""

import unicodedata
from datetime import UTC, datetime, timedelta

import anyio
import pyotp
import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError
from argon2.low_level import Type

from identity import passwords
from identity.passwords import PinProblem

PASSWORD = "correct horse 电池 staple"
PEPPER = bytes(range(32))
PIN = "274951"
# The secret of RFC 6238, appendix B, for SHA-1: "12345678901234567890".
RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


async def test_a_password_is_known_again_and_no_other_is() -> None:
    stored = await passwords.hash_password(PASSWORD)
    parameters = extract_parameters(stored)
    costs = (parameters.memory_cost, parameters.time_cost, parameters.parallelism)
    assert (parameters.type, costs) == (Type.ID, (65_536, 3, 4))
    assert await passwords.verify_password(PASSWORD, stored)
    assert not await passwords.verify_password(PASSWORD + " ", stored)
    assert not await passwords.verify_password("", stored)
    assert not await passwords.verify_password("x" * 257, stored)
    assert PASSWORD not in stored
    assert not passwords.needs_new_hash(stored)


async def test_a_password_is_the_same_from_every_keyboard() -> None:
    stored = CHEAP.hash(unicodedata.normalize("NFKC", "pässwörd１２"))
    assert await passwords.verify_password(unicodedata.normalize("NFD", "pässwörd12"), stored)
    assert passwords.needs_new_hash(stored)


async def test_what_is_no_hash_is_a_fault() -> None:
    with pytest.raises(InvalidHashError):
        await passwords.verify_password(PASSWORD, "plain")
    with pytest.raises(InvalidHashError):
        await passwords.verify_pin(PIN, "", pepper=PEPPER)


@pytest.mark.parametrize("password", ["", "x" * 257])
async def test_a_password_has_a_length(password: str) -> None:
    with pytest.raises(AssertionError):
        await passwords.hash_password(password)


async def test_a_pin_is_known_again_with_the_same_pepper_only() -> None:
    stored = await passwords.hash_pin(PIN, pepper=PEPPER)
    parameters = extract_parameters(stored)
    costs = (parameters.memory_cost, parameters.time_cost, parameters.parallelism)
    assert (parameters.type, costs) == (Type.ID, (19_456, 2, 1))
    assert await passwords.verify_pin(PIN, stored, pepper=PEPPER)
    assert not await passwords.verify_pin("274952", stored, pepper=PEPPER)
    assert not await passwords.verify_pin("", stored, pepper=PEPPER)
    assert not await passwords.verify_pin(PIN, stored, pepper=PEPPER[::-1])
    assert stored != await passwords.hash_pin(PIN, pepper=PEPPER)


@pytest.mark.parametrize(
    ("pin", "problem"),
    [
        ("", PinProblem.NOT_SIX_DIGITS),
        ("27495", PinProblem.NOT_SIX_DIGITS),
        ("2749510", PinProblem.NOT_SIX_DIGITS),
        ("27495a", PinProblem.NOT_SIX_DIGITS),
        ("274951\n", PinProblem.NOT_SIX_DIGITS),
        ("２７４９５１", PinProblem.NOT_SIX_DIGITS),
        ("٢٧٤٩٥١", PinProblem.NOT_SIX_DIGITS),
        ("000000", PinProblem.REPEATED),
        ("999999", PinProblem.REPEATED),
        ("121212", PinProblem.REPEATED),
        ("111222", PinProblem.REPEATED),
        ("100000", PinProblem.REPEATED),
        ("123123", PinProblem.REPEATED),
        ("520520", PinProblem.REPEATED),
        ("123456", PinProblem.SEQUENTIAL),
        ("012345", PinProblem.SEQUENTIAL),
        ("890123", PinProblem.SEQUENTIAL),
        ("654321", PinProblem.SEQUENTIAL),
        ("210987", PinProblem.SEQUENTIAL),
        ("112233", PinProblem.SEQUENTIAL),
        ("998877", PinProblem.SEQUENTIAL),
        (PIN, None),
        ("135790", None),
        ("123457", None),
    ],
)
def test_a_new_pin_is_not_easy_to_guess(pin: str, problem: PinProblem | None) -> None:
    assert passwords.pin_problem(pin) is problem


async def test_two_hashes_run_at_once_and_pins_do_not_wait_for_passwords() -> None:
    busiest, longest = 0, 0

    async def watch() -> None:
        nonlocal busiest, longest
        while True:
            line = passwords._pin_line.get(None)
            if line is not None:
                statistics = line.statistics()
                busiest = max(busiest, statistics.borrowed_tokens)
                longest = max(longest, statistics.tasks_waiting)
            await anyio.sleep(0.001)

    async with anyio.create_task_group() as watching:
        watching.start_soon(watch)
        async with anyio.create_task_group() as hashing:
            for _ in range(6):
                hashing.start_soon(lambda: passwords.hash_pin(PIN, pepper=PEPPER))
        watching.cancel_scope.cancel()
    assert busiest == 2
    assert longest >= 1
    assert passwords._pin_line.get() is not passwords._password_line.get(None)


def test_every_event_loop_has_its_own_line() -> None:
    stored = CHEAP.hash(passwords._peppered(PIN, PEPPER))

    async def verify() -> bool:
        return await passwords.verify_pin(PIN, stored, pepper=PEPPER)

    assert anyio.run(verify)
    assert anyio.run(verify)


# RFC 6238, appendix B: the last six of the eight digits printed there.
@pytest.mark.parametrize(
    ("at", "code"),
    [
        (59, "287082"),
        (1_111_111_109, "081804"),
        (1_111_111_111, "050471"),
        (1_234_567_890, "005924"),
        (2_000_000_000, "279037"),
        (20_000_000_000, "353130"),
    ],
)
def test_the_vectors_of_the_rfc_hold(at: int, code: str) -> None:
    now = datetime.fromtimestamp(at, UTC)
    assert passwords.totp_step(RFC_SECRET, code, now=now) == at // 30


def test_a_code_may_be_one_step_early_or_late() -> None:
    secret = passwords.new_totp_secret()
    begins = datetime(2026, 3, 1, 4, 5, 30, tzinfo=UTC)
    step = int(begins.timestamp()) // 30
    code = pyotp.TOTP(secret).generate_otp(step)
    taken = [-30, 0, 29, 59]
    refused = [-31, 60]
    for seconds in taken:
        assert passwords.totp_step(secret, code, now=begins + timedelta(seconds=seconds)) == step
    for seconds in refused:
        assert passwords.totp_step(secret, code, now=begins + timedelta(seconds=seconds)) is None


@pytest.mark.parametrize(
    "code", ["", "28708", "0287082", "287083", "２８７０８２", "94287082", "287082\n"]
)
def test_any_other_code_is_refused(code: str) -> None:
    now = datetime.fromtimestamp(59, UTC)
    assert passwords.totp_step(RFC_SECRET, code, now=now) is None


def test_new_secrets_have_160_bits_and_differ() -> None:
    first, second = passwords.new_totp_secret(), passwords.new_totp_secret()
    assert first != second
    assert len(first) == len(second) == 32
