"""Real names: passed by rule, decided by an operator, refused with reasons, and never readable."""

import asyncio
from collections.abc import AsyncIterator

import httpx
import pytest
from sqlalchemy import text

from api.commands.callers import Citizen, OperatorBrowser
from api.services import Services
from identity.kernel import business_date
from tests.conftest import SetClock
from tests.makers import make_citizen, make_operator, make_session
from tests.papers import Papers, number_of_age


@pytest.fixture
async def caller(services: Services, client: httpx.AsyncClient) -> Citizen:
    """Return a signed-in person whose identity nobody checked yet."""
    return await stranger(services, client)


@pytest.fixture
async def browser(
    services: Services, client: httpx.AsyncClient, clock: SetClock
) -> AsyncIterator[OperatorBrowser]:
    """Return an operator's browser, signed in."""
    signed_in = OperatorBrowser(client, clock)
    assert await signed_in.sign_in(await make_operator(services))
    yield signed_in
    client.cookies.clear()


async def stranger(services: Services, client: httpx.AsyncClient) -> Citizen:
    """Return one more such person."""
    return await make_session(services, client, await make_citizen(services, is_verified=False))


async def state_of(caller: Citizen) -> tuple[str, list[str]]:
    """Return how far a person's check is, and why."""
    body = (await caller.call("GET", "/me/real-name")).json()
    return body["state"], body["reasons"]


async def test_good_papers_of_an_adult_pass_by_rule(caller: Citizen, papers: Papers) -> None:
    assert await state_of(caller) == ("none", [])
    answer = await papers.submit(caller)
    assert answer.status_code == 202
    assert answer.json() == {"state": "passed", "reasons": []}
    me = (await caller.call("GET", "/me")).json()["real_name"]
    assert me["state"] == "passed"
    assert me["name_masked"] == papers.name[0] + "*" * (len(papers.name) - 1)
    assert papers.id_number[4:-4] not in me["id_number_masked"]
    assert (await caller.call("POST", "/cards", json={"card_type": "standard"})).status_code == 201
    again = await papers.submit(caller)
    assert (again.status_code, again.json()["code"]) == (409, "real-name-exists")


async def test_a_wrong_number_is_rejected_with_its_reason_and_may_be_mended(
    caller: Citizen, papers: Papers
) -> None:
    number = papers.id_number
    other_digit = "0" if number[-1] != "0" else "1"
    for wrong, reason in (
        (number[:-1] + other_digit, "id-number-checksum"),
        ("12345", "id-number-"),
        ("一二三", "id-number-"),
    ):
        answer = await papers.submit(caller, id_number=wrong)
        assert answer.status_code == 202, answer.text
        assert answer.json()["state"] == "rejected"
        assert any(one.startswith(reason) for one in answer.json()["reasons"]), answer.text
    assert (await papers.submit(caller, id_number=number.lower())).json()["state"] == "passed"


async def test_age_decides_who_needs_whom(
    services: Services, client: httpx.AsyncClient, papers: Papers, clock: SetClock
) -> None:
    today = business_date(clock())
    for years, verdict in (
        (15, {"state": "rejected", "reasons": ["guardian-needed"]}),
        (16, {"state": "in_review", "reasons": ["minor"]}),
        (17, {"state": "in_review", "reasons": ["minor"]}),
        (18, {"state": "passed", "reasons": []}),
    ):
        caller = await stranger(services, client)
        number = number_of_age(years, today, sequence=100 + years)
        answer = await papers.submit(caller, id_number=number)
        assert answer.json() == verdict, years


async def test_bad_pictures_are_named(caller: Citizen, papers: Papers) -> None:
    for other, reasons in (
        ({"id_front": b"not a picture"}, "id-front-"),
        ({"id_back": papers.id_back[:2000]}, "id-back-"),
        ({"selfie": b"\xff\xd8\xff" + b"\x00" * 100}, "selfie-"),
        ({"id_back": papers.id_front}, "pictures-"),
    ):
        answer = await papers.submit(caller, **other)
        assert answer.status_code == 202, answer.text
        body = answer.json()
        assert body["state"] == "rejected"
        assert any(one.startswith(reasons) for one in body["reasons"]), body


async def test_a_form_that_is_none_is_malformed(caller: Citizen, papers: Papers) -> None:
    jpeg = ("x.jpg", papers.id_front, "image/jpeg")
    fields = {"name": papers.name, "id_number": papers.id_number}
    pictures = {"id_front": jpeg, "id_back": jpeg}
    for data, files in (
        ({}, pictures),
        (fields, {"id_front": jpeg}),
        ({**fields, "name": ""}, pictures),
        ({**fields, "name": "王" * 51}, pictures),
        ({**fields, "name": "王\x00"}, pictures),
        ({**fields, "id_number": "3\n"}, pictures),
        (fields, {**pictures, "more": jpeg}),
        (fields, {}),
    ):
        answer = await caller.call("POST", "/me/real-name", data=data, files=files)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), data
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    part = b'--x\r\nContent-Disposition: form-data; name="name"\r\n'
    for body in (
        b"",
        b"--x--",
        b"{}",
        part + b"\r\n\xff\xfe\r\n--x--\r\n",
        part + b"Content-Type: text/plain; charset=made-up\r\n\r\nx\r\n--x--\r\n",
    ):
        bearer = {**headers, "Authorization": f"Bearer {caller.access_token}"}
        answer = await caller._http.post("/v1/citizen/me/real-name", content=body, headers=bearer)
        assert (answer.status_code, answer.json()["code"]) == (400, "bad-request"), body
    assert await state_of(caller) == ("none", [])


async def test_a_doubt_waits_for_an_operator_who_passes_it(
    caller: Citizen, papers: Papers, browser: OperatorBrowser, services: Services
) -> None:
    answer = await papers.submit(caller, id_front=papers.blurred)
    assert answer.json()["state"] == "in_review"
    assert answer.json()["reasons"] == ["id-front-blurred"]
    waiting = (await browser.call("GET", "/real-name-cases")).json()["items"]
    assert [case["name_masked"] for case in waiting] == [
        papers.name[0] + "*" * (len(papers.name) - 1)
    ]
    path = f"/real-name-cases/{waiting[0]['id']}"
    case = (await browser.call("GET", path)).json()
    assert (case["name"], case["id_number"]) == (papers.name, papers.id_number)
    assert case["pictures"] == ["id_back", "id_front", "selfie"]
    for kind in case["pictures"]:
        picture = await browser.call("GET", f"{path}/pictures/{kind}")
        assert picture.headers["content-type"] == "image/jpeg"
        assert picture.headers["cache-control"] == "no-store"
        assert picture.content.startswith(b"\xff\xd8\xff")
    for kind in ("other", "%00", "..%2Fid_front"):
        missing = await browser.call("GET", f"{path}/pictures/{kind}")
        assert missing.status_code in {400, 404}
    decided = await browser.call(
        "POST", f"{path}/decisions", json={"decision": "passed", "reasons": []}
    )
    assert (decided.status_code, decided.json()["state"]) == (201, "passed")
    assert await state_of(caller) == ("passed", [])
    twice = await browser.call(
        "POST", f"{path}/decisions", json={"decision": "rejected", "reasons": []}
    )
    assert (twice.status_code, twice.json()["code"]) == (409, "state-conflict")
    async with services.db.begin() as session:
        acts = list(
            await session.scalars(
                text("SELECT act FROM identity_audit WHERE act LIKE 'real_name.%' ORDER BY id")
            )
        )
    assert acts.count("real_name.open_picture") == 3
    assert {"real_name.submit", "real_name.open", "real_name.review"} < set(acts)


async def test_an_operator_may_reject_and_the_person_try_again(
    caller: Citizen, papers: Papers, browser: OperatorBrowser
) -> None:
    await papers.submit(caller, id_front=papers.blurred)
    case = (await browser.call("GET", "/real-name-cases")).json()["items"][0]
    decision = {"decision": "rejected", "reasons": ["照片不清楚"]}
    path = f"/real-name-cases/{case['id']}/decisions"
    assert (await browser.call("POST", path, json=decision)).status_code == 201
    assert await state_of(caller) == ("rejected", ["照片不清楚"])
    assert (await papers.submit(caller)).json()["state"] == "passed"


async def test_one_person_is_one_citizen(
    services: Services,
    client: httpx.AsyncClient,
    caller: Citizen,
    papers: Papers,
    browser: OperatorBrowser,
) -> None:
    await papers.submit(caller)
    other = await stranger(services, client)
    answer = await papers.submit(other)
    assert answer.json() == {"state": "in_review", "reasons": ["duplicate-person"]}
    case = (await browser.call("GET", "/real-name-cases")).json()["items"][0]
    path = f"/real-name-cases/{case['id']}/decisions"
    refused = await browser.call("POST", path, json={"decision": "passed", "reasons": []})
    assert (refused.status_code, refused.json()["code"]) == (409, "duplicate-person")


async def test_one_person_at_two_phones_at_once_passes_once(
    services: Services, client: httpx.AsyncClient, papers: Papers
) -> None:
    callers = [await stranger(services, client) for _ in range(2)]
    answers = await asyncio.gather(*(papers.submit(caller) for caller in callers))
    assert sorted(answer.json()["state"] for answer in answers) == ["in_review", "passed"]


async def test_two_submissions_of_one_citizen_at_once_are_one(
    caller: Citizen, papers: Papers
) -> None:
    answers = await asyncio.gather(*(papers.submit(caller) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [202, 409]


async def test_nothing_of_a_person_is_readable_in_the_database(
    services: Services, caller: Citizen, papers: Papers
) -> None:
    await papers.submit(caller)
    await caller.call("PUT", "/me/payment-pin", json={"pin": "204816"})
    await caller.call("POST", "/cards", json={"card_type": "standard"})
    secrets = [papers.name, papers.id_number, papers.id_number[6:14], "204816"]
    async with services.db.begin() as session:
        columns = list(
            await session.execute(
                text(
                    "SELECT table_name, column_name, data_type FROM information_schema.columns"
                    " WHERE table_schema = current_schema()"
                )
            )
        )
        sealed = 0
        for table, column, kind in columns:
            rows = await session.scalars(
                text(f'SELECT "{column}" FROM "{table}" WHERE "{column}" IS NOT NULL')
                if kind == "bytea"
                else text(f'SELECT "{column}"::text FROM "{table}" WHERE "{column}" IS NOT NULL')
            )
            for value in rows:
                where = f"{table}.{column}"
                if isinstance(value, bytes):
                    sealed += 1
                    assert b"\xff\xd8\xff\xe0" not in value, where
                    assert b"JFIF" not in value, where
                    assert not any(secret.encode() in value for secret in secrets), where
                elif column not in {"id", "at"} and not where.endswith("_id"):
                    assert not any(secret in str(value) for secret in secrets[:2]), where
        assert sealed > 5
