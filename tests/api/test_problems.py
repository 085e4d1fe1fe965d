"""A no over HTTP: RFC 9457, in two languages, and nothing of what is inside."""

import io
import json
from collections.abc import Iterator

import httpx
import pytest
import structlog
from litestar import get, post
from sqlalchemy import text

from api.app import create_app
from api.services import Services
from identity.kernel import Refusal
from tests.conftest import AUTHORITY, SetClock
from tests.makers import make_caller, make_holder, make_shop

MEMBERS = {"type", "title", "status", "detail", "code", "request_id", "retryable"}
SECRET = "王小明 320299199001010018 13800000018"


async def test_a_refusal_has_exactly_the_members_of_the_contract(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> None:
    holder = await make_holder(services)
    shop = await make_shop(services)
    machine = shop.machine(client, clock)
    asked = {"order_no": "ORDER0001", "code": holder.phone.code_at(clock()), "amount_fen": 1}
    await machine.call("POST", "/v1/merchant/charges", asked)
    refused = await machine.call("POST", "/v1/merchant/charges", {**asked, "amount_fen": 2})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"
    body = refused.json()
    # `number` is the fact of this refusal; facts stand beside the members.
    assert body.keys() == MEMBERS | {"number"}
    assert body["type"] == "/problems/request-number-reused"
    assert (body["status"], body["code"]) == (422, "request-number-reused")
    assert body["number"] == "ORDER0001"
    assert body["retryable"] is False
    assert len(body["request_id"]) == 36


LANGUAGES = {
    None: False,
    "zh-CN": False,
    "en": True,
    "en-US,en;q=0.9,zh;q=0.8": True,
    "zh-CN,zh;q=0.9,en;q=0.8": False,
    "fr,en;q=0.1": True,
    "en;q=0,zh": False,
    "en;q=x": False,
    "*": False,
    ";;;,,q=,": False,
}


async def test_the_language_is_the_callers(client: httpx.AsyncClient) -> None:
    for accepts, is_english in LANGUAGES.items():
        headers = {} if accepts is None else {"Accept-Language": accepts}
        answer = await client.get("/v1/citizen/me", headers=headers)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert answer.json()["title"] == ("You are signed out" if is_english else "登录已失效")
        assert answer.json()["detail"].isascii() == is_english, accepts


async def test_every_refusal_speaks_both_languages() -> None:
    for refusal in Refusal.by_code.values():
        for said in (refusal.title, refusal.next_step):
            assert said.en.isascii(), refusal.code
            assert not said.zh.isascii(), refusal.code


async def test_an_unknown_path_is_a_problem(client: httpx.AsyncClient) -> None:
    for path in ("/", "/v1", "/v1/citizen/nothing", "/v1/citizen/cards/not-an-id", "/livez"):
        answer = await client.get(path)
        assert answer.status_code == 404, path
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json().keys() == MEMBERS
        assert answer.json()["code"] == "not-found"


METHODS = [
    ("PATCH", "/v1/citizen/cards", {"GET", "POST", "OPTIONS"}),
    ("GET", "/v1/citizen/sign-ins", {"POST", "DELETE", "OPTIONS"}),
    ("POST", "/v1/citizen/me", {"GET", "OPTIONS"}),
    ("DELETE", "/v1/merchant/charges", {"GET", "POST", "OPTIONS"}),
    ("PUT", "/v1/callback/alipay", {"POST", "OPTIONS"}),
]


async def test_a_wrong_method_is_told_the_right_ones(client: httpx.AsyncClient) -> None:
    for method, path, allowed in METHODS:
        answer = await client.request(method, path)
        assert answer.status_code == 405
        assert answer.json()["code"] == "method-not-allowed"
        assert set(answer.headers["allow"].split(", ")) == allowed


MALFORMED = [
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'{"provider": "wechat"}',
    b'{"provider": "wechat", "code": "x", "more": 1}',
    b'{"provider": "weixin", "code": "x"}',
    b'{"provider": "wechat", "code": ""}',
    b'{"provider": "wechat", "code": 7}',
    b'{"provider": "wechat", "code": "\\ud800"}',
    b'{"provider": "wechat", "code": "\\u0000"}',
    b"[" * 100_000,
]


async def test_a_malformed_body_is_the_callers_fault(client: httpx.AsyncClient) -> None:
    for content in MALFORMED:
        headers = {"Content-Type": "application/json"}
        answer = await client.post("/v1/citizen/sign-ins", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), content[:80]
        assert answer.json().keys() <= MEMBERS | {"errors"}


async def test_a_field_is_named_but_not_quoted(client: httpx.AsyncClient) -> None:
    asked = {"provider": "wechat", "code": SECRET * 20}
    answer = await client.post("/v1/citizen/sign-ins", json=asked)
    assert answer.json()["errors"][0]["field"] == "code"
    assert "王小明" not in answer.text


async def test_a_body_too_large_is_refused_before_it_is_read(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/citizen/sign-ins", content=b"x" * 200_000)
    assert (answer.status_code, answer.json()["code"]) == (413, "too-large")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Write logs as a process does, to where the test can read them."""
    written = io.StringIO()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(written))
    yield written
    structlog.configure(logger_factory=structlog.PrintLoggerFactory())


async def _broken(services: Services, clock: SetClock) -> httpx.AsyncClient:
    """Return a client of an application whose handlers break, in each place where one may."""

    @get("/broken", include_in_schema=False)
    async def broken() -> None:
        raise RuntimeError(SECRET)

    @post("/broken", include_in_schema=False)
    async def in_the_database() -> None:
        async with services.db.begin() as session:
            await session.execute(text("SELECT 1 / 0 AS a, :secret"), {"secret": SECRET})

    def never() -> None:
        raise AssertionError

    app = create_app(never, clock, has_page=False)  # type: ignore[arg-type]  # it is not started
    for handler in (broken, in_the_database):
        app.register(handler)
    app.state.services = services
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)  # type: ignore[arg-type]  # Litestar's ASGI types are its own
    return httpx.AsyncClient(transport=transport, base_url=f"http://{AUTHORITY}")


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_fault_says_nothing_of_its_cause(
    services: Services, clock: SetClock, logged: io.StringIO, method: str
) -> None:
    async with await _broken(services, clock) as broken:
        answer = await broken.request(method, "/broken", headers={"Accept-Language": "en"})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    request_id = body.pop("request_id")
    assert body == {
        "type": "/problems/fault",
        "title": "Something went wrong on our side",
        "status": 500,
        "detail": "Try again with the same request number; if it fails again, tell us the"
        " request id.",
        "code": "fault",
        "retryable": True,
    }
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    faults = [line for line in lines if line["event"] == "fault"]
    assert [fault["request_id"] for fault in faults] == [request_id]
    assert "test_problems.py" in faults[0]["fault_at"]
    assert not any(part in logged.getvalue() for part in SECRET.split())


async def test_logs_tell_of_a_request_without_its_person(
    services: Services, client: httpx.AsyncClient, clock: SetClock, logged: io.StringIO
) -> None:
    holder = await make_holder(services)
    caller = await make_caller(services, client, holder)
    await caller.call("PUT", "/me/payment-pin", json={"pin": "204816"})
    await caller.call("GET", f"/cards/{holder.card_id}?secret=hidden")
    lines = [json.loads(line) for line in logged.getvalue().splitlines()]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("PUT", "/v1/citizen/me/payment-pin", 204),
        ("GET", "/v1/citizen/cards/{card_id}", 200),
    ]
    for hidden in ("204816", caller.access_token, str(holder.card_id), "hidden"):
        assert hidden not in logged.getvalue()


async def test_a_lock_held_too_long_is_to_be_asked_again(
    services: Services, client: httpx.AsyncClient
) -> None:
    holder = await make_holder(services)
    caller = await make_caller(services, client, holder)
    path = f"/cards/{holder.card_id}/loss"
    async with services.db.begin() as session:
        await session.execute(text("SELECT id FROM cards_card FOR UPDATE"))
        answer = await caller.call("POST", path, json={})
    assert (answer.status_code, answer.json()["code"]) == (409, "in-progress")
    assert answer.headers["retry-after"] == "1"
    assert (await caller.call("POST", path, json={})).status_code == 200


async def test_a_lost_connection_is_no_fault_of_ours(
    services: Services, client: httpx.AsyncClient
) -> None:
    caller = await make_caller(services, client, await make_holder(services))
    async with services.db.begin() as session:
        others = "pid <> pg_backend_pid() AND datname = current_database()"
        await session.execute(
            text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
        )
    codes = {(await caller.call("GET", "/me")).status_code for _ in range(8)}
    assert codes <= {200, 503}
    assert (await caller.call("GET", "/me")).status_code == 200
