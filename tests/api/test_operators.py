"""Operators: two proofs to sign in, each code once, and a session that ends by itself."""

import asyncio
from datetime import timedelta

import httpx
import pyotp

from api.commands.access import OperatorAccess
from api.commands.callers import OperatorBrowser
from api.services import Services
from tests.conftest import SetClock
from tests.makers import make_caller, make_holder, make_operator

SIGN_INS = "/v1/operator/sign-ins"
CASES = "/v1/operator/real-name-cases"
DECISIONS = f"{CASES}/019aa3f0-1c00-7a10-8000-000000000005/decisions"
DECISION = {"decision": "rejected", "reasons": []}


def body_of(who: OperatorAccess, clock: SetClock, **other: str) -> dict[str, str]:
    """Return what signs an operator in now, with some members replaced."""
    totp = pyotp.TOTP(who.totp_secret).at(clock())
    return {"login": who.login, "password": who.password, "totp": totp, **other}


async def test_a_one_time_code_counts_once(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    who = await make_operator(services)
    assert (await client.post(SIGN_INS, json=body_of(who, clock))).status_code == 201
    again = await client.post(SIGN_INS, json=body_of(who, clock))
    assert (again.status_code, again.json()["code"]) == (401, "sign-in-refused")
    clock.go(seconds=30)
    assert (await client.post(SIGN_INS, json=body_of(who, clock))).status_code == 201


async def test_one_code_sent_many_times_at_once_opens_one_session(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    who = await make_operator(services)
    body = body_of(who, clock)
    answers = await asyncio.gather(*(client.post(SIGN_INS, json=body) for _ in range(4)))
    assert sorted(answer.status_code for answer in answers) == [201, 401, 401, 401]


async def test_what_is_wrong_is_not_said_and_five_wrong_tries_lock(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    who = await make_operator(services)
    old = pyotp.TOTP(who.totp_secret).at(clock() - timedelta(minutes=2))
    wrong = [{"password": "x"}, {"totp": "000000"}, {"totp": old}, {"login": "nobody"}]
    said = []
    for other in wrong:
        answer = await client.post(SIGN_INS, json=body_of(who, clock, **other))
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        said.append({**answer.json(), "request_id": ""})
    assert said == [said[0]] * 4
    for _ in range(2):
        await client.post(SIGN_INS, json=body_of(who, clock, password="x"))
    locked = await client.post(SIGN_INS, json=body_of(who, clock))
    assert {**locked.json(), "request_id": ""} == said[0]
    clock.go(minutes=15)
    assert (await client.post(SIGN_INS, json=body_of(who, clock))).status_code == 201


async def test_the_cookie_is_for_this_site_and_no_script(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    answer = await client.post(SIGN_INS, json=body_of(await make_operator(services), clock))
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("yuanka_operator=")
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert "path=/" in cookie.lower()
    assert answer.json()["csrf_token"] not in cookie


async def test_a_writing_call_needs_the_token_of_the_page(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    who = await make_operator(services)
    body = (await client.post(SIGN_INS, json=body_of(who, clock))).json()
    assert (await client.get(CASES)).status_code == 200
    for headers in ({}, {"X-CSRF-Token": ""}, {"X-CSRF-Token": body["csrf_token"] + "x"}):
        refused = await client.post(DECISIONS, json=DECISION, headers=headers)
        assert (refused.status_code, refused.json()["code"]) == (403, "csrf-refused")
    headers = {"X-CSRF-Token": body["csrf_token"]}
    allowed = await client.post(DECISIONS, json=DECISION, headers=headers)
    assert (allowed.status_code, allowed.json()["code"]) == (404, "not-found")


async def test_the_token_of_another_session_is_no_proof(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    tokens = []
    for _ in range(2):
        who = await make_operator(services)
        tokens.append((await client.post(SIGN_INS, json=body_of(who, clock))).json()["csrf_token"])
    answer = await client.post(DECISIONS, json=DECISION, headers={"X-CSRF-Token": tokens[0]})
    assert answer.status_code == 403


async def test_a_session_ends_after_fifteen_idle_minutes_or_eight_hours(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    who = await make_operator(services)
    await client.post(SIGN_INS, json=body_of(who, clock))
    for _ in range(32):
        clock.go(minutes=15)
        assert (await client.get(CASES)).status_code == 200
    clock.go(seconds=1)
    ended = await client.get(CASES)
    assert (ended.status_code, ended.json()["code"]) == (401, "session-required")
    await client.post(SIGN_INS, json=body_of(who, clock))
    clock.go(minutes=15, seconds=1)
    assert (await client.get(CASES)).status_code == 401


async def test_signing_out_ends_the_session(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    browser = OperatorBrowser(client, clock)
    assert await browser.sign_in(await make_operator(services))
    assert (await browser.call("DELETE", "/sign-ins/current")).status_code == 204
    assert (await browser.call("GET", "/real-name-cases")).status_code == 401


async def test_a_citizen_is_no_operator(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    caller = await make_caller(services, client, await make_holder(services))
    bearer = {"Authorization": f"Bearer {caller.access_token}"}
    for cookie in ("", caller.access_token, "x" * 4_000):
        headers = {**bearer, "Cookie": f"yuanka_operator={cookie}"}
        answer = await client.get(CASES, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, "session-required")
