"""Citizens' sessions: opened by a provider's code, rotated, ended, and stolen in vain."""

import asyncio
from typing import Any

import httpx
import jwt
import pytest

from api.commands.callers import Citizen
from api.replies import b64
from api.services import Services
from identity.kernel import new_id
from tests.conftest import SetClock
from tests.makers import make_caller, make_holder
from tests.serving import Live

REFRESH = "/v1/citizen/sign-ins/refresh"


async def refresh(client: httpx.AsyncClient, token: str) -> httpx.Response:
    """Exchange a refresh token."""
    return await client.post(REFRESH, json={"refresh_token": token})


@pytest.fixture
async def caller(services: Services, client: httpx.AsyncClient) -> Citizen:
    """Return a signed-in person."""
    return await make_caller(services, client, await make_holder(services))


@pytest.mark.xdist_group("simulators")
async def test_a_person_is_the_same_at_each_sign_in_and_another_at_each_provider(
    live: Live,
) -> None:
    callers = [Citizen(live.http, live.services.clock) for _ in range(4)]
    bodies = [
        await caller.sign_in(provider, name)
        for caller, (provider, name) in zip(
            callers,
            [("wechat", "ann"), ("wechat", "ann"), ("alipay", "ann"), ("wechat", "bo")],
            strict=True,
        )
    ]
    people = [body["citizen"] for body in bodies]
    assert people[0]["id"] == people[1]["id"]
    assert len({person["id"] for person in people}) == 3
    assert [person["is_new"] for person in people] == [True, False, True, True]
    assert {body["expires_in"] for body in bodies} == {600}
    for caller, person in zip(callers, people, strict=True):
        assert (await caller.call("GET", "/me")).json()["id"] == person["id"]


@pytest.mark.xdist_group("simulators")
async def test_two_first_sign_ins_at_once_make_one_citizen(live: Live) -> None:
    callers = [Citizen(live.http, live.services.clock) for _ in range(6)]
    bodies = await asyncio.gather(*(caller.sign_in("wechat", "twin") for caller in callers))
    assert len({body["citizen"]["id"] for body in bodies}) == 1
    assert sum(body["citizen"]["is_new"] for body in bodies) == 1


@pytest.mark.xdist_group("simulators")
async def test_a_code_that_the_provider_does_not_know_signs_nobody_in(live: Live) -> None:
    for provider in ("wechat", "alipay"):
        body = {"provider": provider, "code": "made-up"}
        answer = await live.http.post("/v1/citizen/sign-ins", json=body)
        assert (answer.status_code, answer.json()["code"]) == (401, "sign-in-code-refused")


async def test_a_silent_provider_is_no_fault_of_ours(client: httpx.AsyncClient) -> None:
    for provider in ("wechat", "alipay"):
        body = {"provider": provider, "code": "sim:ann"}
        answer = await client.post("/v1/citizen/sign-ins", json=body)
        assert (answer.status_code, answer.json()["code"]) == (503, "provider-unavailable")
        assert answer.headers["retry-after"] == "1"


async def test_a_refresh_token_is_exchanged_once(
    client: httpx.AsyncClient, caller: Citizen, clock: SetClock
) -> None:
    token, seen = caller.refresh_token, {caller.refresh_token}
    for _ in range(3):
        clock.go(minutes=9)
        answer = await refresh(client, token)
        assert answer.status_code == 201
        token = answer.json()["refresh_token"]
        assert token not in seen
        seen.add(token)
    caller.access_token = answer.json()["access_token"]
    assert (await caller.call("GET", "/me")).status_code == 200


async def test_a_token_used_twice_ends_the_session_of_thief_and_owner(
    client: httpx.AsyncClient, caller: Citizen, clock: SetClock
) -> None:
    stolen = caller.refresh_token
    owner = (await refresh(client, stolen)).json()
    clock.go(seconds=31)
    thief = await refresh(client, stolen)
    assert (thief.status_code, thief.json()["code"]) == (401, "token-invalid")
    assert (await refresh(client, owner["refresh_token"])).status_code == 401
    caller.access_token = owner["access_token"]
    assert (await caller.call("GET", "/me")).status_code == 401


async def test_a_lost_answer_may_be_asked_for_again(
    client: httpx.AsyncClient, caller: Citizen, clock: SetClock
) -> None:
    lost = (await refresh(client, caller.refresh_token)).json()
    clock.go(seconds=29)
    again = await refresh(client, caller.refresh_token)
    assert again.status_code == 201
    goes_on = await refresh(client, again.json()["refresh_token"])
    assert goes_on.status_code == 201
    # Whoever shows the answer that was called lost has it after all: two hold this session.
    assert (await refresh(client, lost["refresh_token"])).status_code == 401
    assert (await refresh(client, goes_on.json()["refresh_token"])).status_code == 401


async def test_thief_and_owner_never_both_go_on_from_one_token(
    client: httpx.AsyncClient, caller: Citizen, clock: SetClock
) -> None:
    first = await refresh(client, caller.refresh_token)
    await refresh(client, first.json()["refresh_token"])
    # The successor is used, so this is a theft and not a lost answer, however soon it comes.
    assert (await refresh(client, caller.refresh_token)).status_code == 401
    assert (await refresh(client, first.json()["refresh_token"])).status_code == 401


async def test_many_refreshes_at_once_leave_one_living_token(
    client: httpx.AsyncClient, caller: Citizen
) -> None:
    answers = await asyncio.gather(*(refresh(client, caller.refresh_token) for _ in range(6)))
    fresh = [one.json()["refresh_token"] for one in answers if one.status_code == 201]
    assert fresh
    living = [token for token in fresh if (await refresh(client, token)).status_code == 201]
    assert len(living) <= 1


async def test_refresh_tokens_end_after_thirty_idle_days_and_ninety_in_all(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services)
    idle, busy = [await make_caller(services, client, holder) for _ in range(2)]
    token = busy.refresh_token
    for _ in range(8):
        clock.go(days=11)
        answer = await refresh(client, token)
        assert answer.status_code == 201
        token = answer.json()["refresh_token"]
    clock.go(days=2)
    assert (await refresh(client, token)).status_code == 401
    assert (await refresh(client, idle.refresh_token)).status_code == 401


async def test_signing_out_ends_one_session_and_everywhere_ends_all(
    services: Services, client: httpx.AsyncClient
) -> None:
    holder = await make_holder(services)
    callers = [await make_caller(services, client, holder) for _ in range(3)]
    stranger = await make_caller(services, client, await make_holder(services))
    assert (await callers[0].call("DELETE", "/sign-ins/current")).status_code == 204
    states = [(await caller.call("GET", "/me")).status_code for caller in callers]
    assert states == [401, 200, 200]
    assert (await callers[1].call("DELETE", "/sign-ins")).status_code == 204
    states = [(await caller.call("GET", "/me")).status_code for caller in [*callers, stranger]]
    assert states == [401, 401, 401, 200]
    for caller in callers:
        assert (await refresh(client, caller.refresh_token)).status_code == 401


async def test_an_access_token_is_ours_for_citizens_and_ten_minutes(
    services: Services, client: httpx.AsyncClient, caller: Citizen, clock: SetClock
) -> None:
    keys, now = services.token_keys, clock()
    payload: dict[str, Any] = jwt.decode(
        caller.access_token, options={"verify_signature": False, "verify_exp": False}
    )
    headers = jwt.get_unverified_header(caller.access_token)

    def forged(*, head: dict[str, Any] | None = None, **claims: Any) -> str:
        said = {**payload, **claims}
        kept = {name: value for name, value in said.items() if value is not None}
        return jwt.encode(
            kept, keys.private_key, algorithm="EdDSA", headers={**headers, **(head or {})}
        )

    bad = {
        "another audience": forged(aud="operator"),
        "another issuer": forged(iss="elsewhere"),
        "no expiry": forged(exp=None),
        "no session": forged(sid=None),
        "a session that is not": forged(sid=str(new_id(now))),
        "too long": forged(exp=payload["iat"] + 601),
        "from the future": forged(iat=payload["iat"] + 60, exp=payload["exp"] + 60),
        "another type": forged(head={"typ": "JWT"}),
        "unknown key": forged(head={"kid": "other"}),
        "unsigned": caller.access_token.rpartition(".")[0] + ".",
        "none": b64(b'{"alg":"none","typ":"at+jwt","kid":"development-1"}')
        + "."
        + caller.access_token.split(".")[1]
        + ".",
        "not one": "x.y.z",
        "empty": "",
        "long": "x" * 5_000,
        "latin": "é",
    }
    for why, token in bad.items():
        raw = {b"Authorization": f"Bearer {token}".encode("latin-1")}
        answer = await client.get("/v1/citizen/me", headers=raw)
        assert (answer.status_code, answer.json()["code"]) == (401, "token-invalid"), why
    for scheme in ("Basic", "bearer", "Bearer"):
        sent = {"Authorization": f"{scheme} {caller.access_token}"}
        answer = await client.get("/v1/citizen/me", headers=sent)
        assert answer.status_code == (401 if scheme == "Basic" else 200)
    clock.go(seconds=599)
    assert (await caller.call("GET", "/me")).status_code == 200
    clock.go(seconds=1)
    assert (await caller.call("GET", "/me")).status_code == 401
