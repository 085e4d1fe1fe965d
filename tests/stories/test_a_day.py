"""One person's day in the city, told through HTTP only, with providers that really sign."""

import secrets
from time import monotonic
from typing import Any

import pytest

from api.clock import utc_now
from api.commands.callers import Citizen, Machine, OperatorBrowser, body_of
from tests.makers import make_gate, make_operator, make_pass_type, make_shop
from tests.papers import Papers
from tests.serving import Live
from tests.stories.telling import PIN, charge, new_code, recharge, scan
from wallet import invariants

pytestmark = pytest.mark.xdist_group("simulators")


async def test_a_day_from_sign_in_to_sign_out(live: Live, papers: Papers) -> None:
    services, http = live.services, live.http
    shop, other_shop = [(await make_shop(services)).machine(http, utc_now) for _ in range(2)]
    gate_at = await make_gate(services)
    closed = (await make_gate(services, is_closed=True)).machine(http, utc_now)
    pass_type, _ = await make_pass_type(services, [gate_at.park.id], price_fen=4_000)
    ann = Citizen(http, utc_now)
    await _become_known(ann, papers)
    await recharge(live, ann, "wechat_pay", 10_000)
    await _buy_pass(ann, str(pass_type.id))
    await _enter(ann, gate_at.machine(http, utc_now))
    refused = await scan(closed, await new_code(ann))
    assert (refused["decision"], refused["reason"], refused["open_seconds"]) == ("deny", 506, 0)
    await _drink_tea(ann, shop, other_shop)
    assert (await ann.card())["balance_fen"] == 4_000
    await _read_statement(ann)
    visits = body_of(await ann.call("GET", f"/cards/{ann.card_id}/visits"))["items"]
    assert [visit["reason"] for visit in visits] == [506, 0]
    assert visits[1]["state"] == "passed"
    assert (await ann.call("DELETE", "/sign-ins")).status_code == 204
    assert (await ann.call("GET", "/me")).status_code == 401
    assert [proof for proof in await invariants.prove(services.db) if proof.faults] == []


async def _become_known(ann: Citizen, papers: Papers) -> None:
    assert (await ann.sign_in("wechat", "ann-of-the-day"))["citizen"]["is_new"]
    unknown = await ann.call("POST", "/cards", json={"card_type": "standard"})
    assert unknown.json()["code"] == "real-name-required"
    assert body_of(await papers.submit(ann), 202)["state"] == "passed"
    card = await ann.get_card()
    assert (card["state"], card["balance_fen"], card["passes"]) == ("active", 0, [])
    assert len(card["card_no"]) == 16
    phone = {"provider": "wechat", "code": "sim:ann-of-the-day"}
    bound = body_of(await ann.call("PUT", "/me/phone", json=phone))
    body_of(await ann.call("PUT", "/me/payment-pin", json={"pin": PIN}), 204)
    me = body_of(await ann.call("GET", "/me"))
    assert (me["phone_masked"], me["has_payment_pin"]) == (bound["phone_masked"], True)
    assert (await ann.bind_phone())["gen"] == 1


async def _buy_pass(ann: Citizen, pass_type_id: str) -> None:
    body = {"card_id": ann.card_id, "pass_type_id": pass_type_id, "pay_by": "balance"}
    answer = await ann.call("POST", "/passes", key=secrets.token_hex(16), json=body)
    bought = body_of(answer, 201)
    assert (bought["state"], bought["price_fen"]) == ("active", 4_000)
    card = await ann.card()
    assert (card["balance_fen"], card["available_fen"]) == (6_000, 6_000)
    assert [held["id"] for held in card["passes"]] == [bought["id"]]


async def _enter(ann: Citizen, gate: Machine) -> None:
    entered = await scan(gate, await new_code(ann))
    assert (entered["decision"], entered["reason"], entered["left"]) == ("allow", 0, 19)
    assert entered["open_seconds"] > 0
    me = body_of(await ann.call("GET", "/me"))
    assert entered["display_name"] == me["real_name"]["name_masked"]
    told = {"result": "passed", "at": utc_now().isoformat()}
    path = f"/v1/gate/admissions/{entered['admission_id']}/result"
    assert body_of(await gate.call("POST", path, told))["state"] == "passed"


async def _drink_tea(ann: Citizen, shop: Machine, other_shop: Machine) -> None:
    code = await new_code(ann)
    tea = await charge(shop, code, 3_600)
    assert (tea["state"], tea["reason"], tea["refunded_fen"]) == ("succeeded", 0, 0)
    again = await charge(other_shop, code, 100)
    assert (again["state"], again["reason"]) == ("declined", 305), "a code works once"
    path = f"/v1/merchant/charges/{tea['id']}/refunds"
    back = {"refund_no": secrets.token_hex(8), "amount_fen": 1_600, "reason": "退一份茶点"}
    assert body_of(await shop.call("POST", path, back), 201)["refunded_fen"] == 1_600
    found = body_of(await shop.call("GET", f"/v1/merchant/charges?order_no={tea['order_no']}"))
    assert found["items"][0]["refunded_fen"] == 1_600
    assert (await charge(shop, await new_code(ann), 4_001))["state"] == "declined"


async def _read_statement(ann: Citizen) -> None:
    path = f"/cards/{ann.card_id}/entries"
    lines = body_of(await ann.call("GET", path))["items"]
    assert [line["amount_fen"] for line in lines] == [1_600, -3_600, -4_000, 10_000]
    assert [line["balance_after_fen"] for line in lines] == [4_000, 2_400, 6_000, 10_000]
    paged: list[dict[str, Any]] = []
    after = ""
    while len(paged) < len(lines):
        page = body_of(await ann.call("GET", f"{path}?limit=1{after}"))
        paged += page["items"]
        after = f"&cursor={page['next_cursor']}"
    assert paged == lines
    assert page["next_cursor"] is None


async def test_a_doubt_is_decided_by_an_operator_and_reaches_the_phone(
    live: Live, papers: Papers
) -> None:
    bo = Citizen(live.http, utc_now)
    await bo.sign_in("alipay", "bo-of-the-day")
    submitted = body_of(await papers.submit(bo, id_front=papers.blurred), 202)
    assert submitted["state"] == "in_review"
    browser = OperatorBrowser(live.http, utc_now)
    assert await browser.sign_in(await make_operator(live.services))
    case = body_of(await browser.call("GET", "/real-name-cases"))["items"][0]
    decision = {"decision": "passed", "reasons": []}
    path = f"/real-name-cases/{case['id']}/decisions"
    body_of(await browser.call("POST", path, json=decision), 201)
    assert body_of(await bo.call("GET", "/me/real-name"))["state"] == "passed"
    await bo.get_card()


async def test_a_lost_card_is_refused_everywhere_within_a_second(
    live: Live, papers: Papers
) -> None:
    services, http = live.services, live.http
    shop = (await make_shop(services)).machine(http, utc_now)
    gate = (await make_gate(services)).machine(http, utc_now)
    ann = await _ready(live, papers)
    await recharge(live, ann, "wechat_pay", 1_000)
    assert (await charge(shop, await new_code(ann), 100))["state"] == "succeeded"
    code = await new_code(ann)
    lost = body_of(await ann.call("POST", f"/cards/{ann.card_id}/loss", json={}))
    began = monotonic()
    assert lost["state"] == "lost"
    declined = await charge(shop, code, 100)
    assert (declined["state"], declined["reason"]) == ("declined", 402)
    denied = await scan(gate, code)
    assert (denied["decision"], denied["reason"]) == ("deny", 402)
    assert monotonic() - began < 1

    # Taken back with the PIN, the same phone goes on.
    assert (await ann.call("DELETE", f"/cards/{ann.card_id}/loss")).status_code == 403
    await ann.step_up(PIN)
    assert body_of(await ann.call("DELETE", f"/cards/{ann.card_id}/loss"))["state"] == "active"
    assert (await charge(shop, await new_code(ann), 100))["state"] == "succeeded"

    # Reissued, what the old phone shows is worth nothing; the new one has the money.
    old = await new_code(ann)
    path = f"/cards/{ann.card_id}/reissue"
    before = await ann.card()
    after = body_of(await ann.call("POST", path, key=secrets.token_hex(16), json={}), 201)
    assert after["card_no"] != before["card_no"]
    assert after["balance_fen"] == before["balance_fen"] == 800
    dead = await charge(shop, old, 100)
    assert (dead["state"], dead["reason"]) == ("declined", 402)
    await ann.bind_phone()
    assert (await charge(shop, await new_code(ann), 100))["state"] == "succeeded"


async def _ready(live: Live, papers: Papers) -> Citizen:
    """Return a person with a card, a PIN and a phone."""
    ann = Citizen(live.http, utc_now)
    await ann.sign_in("wechat", f"ready-{secrets.token_hex(4)}")
    assert body_of(await papers.submit(ann), 202)["state"] == "passed"
    await ann.get_card()
    body_of(await ann.call("PUT", "/me/payment-pin", json={"pin": PIN}), 204)
    await ann.bind_phone()
    return ann
