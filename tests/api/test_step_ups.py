"""Payment PINs and step-ups: who asks proves it again, and guessing ends after five."""

import asyncio

import httpx
import pytest

from api.commands.callers import Citizen
from api.services import Services
from tests.conftest import SetClock
from tests.makers import make_caller, make_holder

PIN, OTHER = "204816", "518203"
KEY = "a-key-of-sixteen"


@pytest.fixture
async def caller(services: Services, client: httpx.AsyncClient) -> Citizen:
    """Return a person with a card and a PIN."""
    made = await make_caller(services, client, await make_holder(services))
    assert (await made.call("PUT", "/me/payment-pin", json={"pin": PIN})).status_code == 204
    return made


async def guess(caller: Citizen, pin: str) -> httpx.Response:
    """Try a PIN."""
    return await caller.call("POST", "/step-ups", json={"pin": pin})


async def test_a_pin_is_six_digits_and_not_a_plain_one(
    services: Services, client: httpx.AsyncClient
) -> None:
    caller = await make_caller(services, client, await make_holder(services))
    unset = await guess(caller, PIN)
    assert (unset.status_code, unset.json()["code"]) == (409, "pin-not-set")
    for pin in ("111111", "123456", "654321"):
        weak = await caller.call("PUT", "/me/payment-pin", json={"pin": pin})
        assert (weak.status_code, weak.json()["code"]) == (422, "pin-weak")
    for bad in ("20481", "2048160", "20481a", "204816\n", "２０４８１６", "", None, 204816):
        malformed = await caller.call("PUT", "/me/payment-pin", json={"pin": bad})
        assert (malformed.status_code, malformed.json()["code"]) == (400, "bad-request"), bad
    assert (await caller.call("GET", "/me")).json()["has_payment_pin"] is False


async def test_changing_a_pin_needs_the_old_one_or_a_step_up(caller: Citizen) -> None:
    for old, code in (({}, "step-up-required"), ({"old_pin": OTHER}, "pin-wrong")):
        refused = await caller.call("PUT", "/me/payment-pin", json={"pin": OTHER, **old})
        assert (refused.status_code, refused.json()["code"]) == (403, code)
    changed = await caller.call("PUT", "/me/payment-pin", json={"pin": OTHER, "old_pin": PIN})
    assert changed.status_code == 204
    assert (await guess(caller, PIN)).status_code == 403
    await caller.step_up(OTHER)
    assert (await caller.call("PUT", "/me/payment-pin", json={"pin": PIN})).status_code == 204
    assert (await guess(caller, PIN)).status_code == 201


async def test_the_fifth_wrong_try_locks_for_a_day(caller: Citizen, clock: SetClock) -> None:
    left = [(await guess(caller, OTHER)).json().get("tries_left") for _ in range(5)]
    assert left == [4, 3, 2, 1, 0]
    locked = await guess(caller, PIN)
    assert (locked.status_code, locked.json()["code"]) == (403, "pin-locked")
    change = await caller.call("PUT", "/me/payment-pin", json={"pin": OTHER, "old_pin": PIN})
    assert change.json()["code"] == "pin-locked"
    clock.go(hours=24, seconds=1)
    # The access token is old by now, the session is not.
    fresh = await caller._http.post(
        "/v1/citizen/sign-ins/refresh", json={"refresh_token": caller.refresh_token}
    )
    caller.access_token = fresh.json()["access_token"]
    assert (await guess(caller, OTHER)).json()["tries_left"] == 4
    assert (await guess(caller, PIN)).status_code == 201


async def test_a_right_pin_forgets_the_wrong_ones(caller: Citizen) -> None:
    for _ in range(2):
        for _ in range(4):
            assert (await guess(caller, OTHER)).json()["code"] == "pin-wrong"
        assert (await guess(caller, PIN)).status_code == 201


async def test_parallel_guesses_count_one_by_one(caller: Citizen) -> None:
    answers = await asyncio.gather(*(guess(caller, f"30{n}916") for n in range(8)))
    codes = [answer.json()["code"] for answer in answers]
    assert sorted(codes) == ["pin-locked"] * 3 + ["pin-wrong"] * 5
    assert sorted(a.json()["tries_left"] for a in answers if "tries_left" in a.json()) == [
        0,
        1,
        2,
        3,
        4,
    ]
    assert (await guess(caller, PIN)).json()["code"] == "pin-locked"


async def test_acts_that_need_a_step_up_name_the_ways(caller: Citizen) -> None:
    card = f"/cards/{caller.card_id}"
    await caller.call("POST", f"{card}/loss", json={})
    acts: list[tuple[str, str, dict[str, str] | None]] = [
        ("DELETE", f"{card}/loss", None),
        ("POST", f"{card}/reissue", {}),
        ("POST", f"{card}/closure", {}),
    ]
    for method, path, body in acts:
        refused = await caller.call(method, path, key=KEY, json=body)
        assert (refused.status_code, refused.json()["code"]) == (403, "step-up-required")
        assert refused.json()["ways"] == ["pin"]
    await caller.step_up(PIN)
    assert (await caller.call(*acts[0][:2])).status_code == 200


async def test_another_phone_needs_a_step_up_and_the_same_one_none(caller: Citizen) -> None:
    path = f"/cards/{caller.card_id}/phone"
    first = await caller.call("PUT", path, json={"device_id": "device-1", "model": "x"})
    assert first.json()["code"] == "step-up-required"
    await caller.step_up(PIN)
    bound = await caller.call("PUT", path, json={"device_id": "device-1", "model": "x"})
    assert bound.status_code == 200
    assert bound.json()["device_key"]
    caller.step_up_token = ""
    again = await caller.call("PUT", path, json={"device_id": "device-1", "model": "x"})
    assert (again.json()["gen"], again.json()["device_key"]) == (bound.json()["gen"], None)


async def test_a_step_up_is_of_one_person_in_one_session_for_five_minutes(
    services: Services, client: httpx.AsyncClient, caller: Citizen, clock: SetClock
) -> None:
    path = f"/cards/{caller.card_id}/loss"
    await caller.call("POST", path, json={})
    await caller.step_up(PIN)
    stranger = await make_caller(services, client, await make_holder(services))
    await stranger.call("POST", f"/cards/{stranger.card_id}/loss", json={})
    stranger.step_up_token = caller.step_up_token
    refused = await stranger.call("DELETE", f"/cards/{stranger.card_id}/loss")
    assert refused.json()["code"] == "step-up-required"
    for token in ("made-up", caller.step_up_token[:-1], caller.step_up_token + "x"):
        kept, caller.step_up_token = caller.step_up_token, token
        assert (await caller.call("DELETE", path)).json()["code"] == "step-up-required"
        caller.step_up_token = kept
    clock.go(seconds=300)
    assert (await caller.call("DELETE", path)).json()["code"] == "step-up-required"
    await caller.step_up(PIN)
    clock.go(seconds=299)
    assert (await caller.call("DELETE", path)).status_code == 200
