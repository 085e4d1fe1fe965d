import json
from datetime import timedelta
from time import sleep
from typing import Any

import httpx
import pytest

from tests.simulators.clients import merchant_authorization, wechat_open_id, wechat_pay
from tests.simulators.listening import Inbox
from tests.simulators.running import Simulators


@pytest.fixture
def pay(simulators: Simulators, inbox: Inbox) -> Any:
    return wechat_pay(simulators.env, notify_url=f"{inbox.url}/wechat-pay")


@pytest.fixture
def payer(simulators: Simulators) -> dict[str, str]:
    return {"openid": wechat_open_id(simulators.env, "sim:zhang")}


def told(answer: tuple[int, str]) -> tuple[int, Any]:
    status, text = answer
    return status, json.loads(text) if text else None


def code(answer: tuple[int, str]) -> tuple[int, str]:
    status, content = told(answer)
    return status, content["code"]


def test_the_sdk_goes_the_whole_way(
    simulators: Simulators, inbox: Inbox, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    status, made = told(pay.pay("充值", order_no, {"total": 5000, "currency": "CNY"}, payer))
    assert status == 200
    assert made["prepay_id"].startswith("wx")
    _, shown = told(pay.query(out_trade_no=order_no))
    assert (shown["trade_state"], shown["amount"]["total"]) == ("NOTPAY", 5000)
    assert "transaction_id" not in shown

    assert simulators.tell("pay", out_trade_no=order_no).json()["state"] == "paid"
    letter = inbox.take()
    notice = pay.callback(letter.headers, letter.body)
    assert notice["event_type"] == "TRANSACTION.SUCCESS"
    assert notice["resource"] == {
        "appid": simulators.env["WECHAT_APP_ID"],
        "mchid": simulators.env["WECHAT_PAY_MCH_ID"],
        "out_trade_no": order_no,
        "transaction_id": notice["resource"]["transaction_id"],
        "trade_type": "JSAPI",
        "trade_state": "SUCCESS",
        "trade_state_desc": "支付成功",
        "bank_type": "OTHERS",
        "attach": "",
        "success_time": notice["resource"]["success_time"],
        "payer": payer,
        "amount": {
            "total": 5000,
            "payer_total": 5000,
            "currency": "CNY",
            "payer_currency": "CNY",
        },
    }
    _, shown = told(pay.query(out_trade_no=order_no))
    assert shown == notice["resource"]

    amount = {"refund": 1200, "total": 5000, "currency": "CNY"}
    status, refund = told(pay.refund(f"{order_no}-1", amount, out_trade_no=order_no))
    assert (status, refund["status"], refund["amount"]["refund"]) == (200, "PROCESSING", 1200)
    letter = inbox.take()
    notice = pay.callback(letter.headers, letter.body)
    assert notice["event_type"] == "REFUND.SUCCESS"
    assert notice["resource"]["refund_status"] == "SUCCESS"
    assert notice["resource"]["amount"]["refund"] == 1200
    _, refund = told(pay.query_refund(f"{order_no}-1"))
    assert (refund["status"], "refund_status" in refund) == ("SUCCESS", False)
    _, shown = told(pay.query(out_trade_no=order_no))
    assert shown["trade_state"] == "REFUND"


def test_the_sdk_closes_an_order_and_closing_twice_changes_nothing(
    simulators: Simulators, inbox: Inbox, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    pay.pay("充值", order_no, {"total": 1}, payer)
    assert pay.close(order_no)[0] == 204
    assert pay.close(order_no)[0] == 204
    assert told(pay.query(out_trade_no=order_no))[1]["trade_state"] == "CLOSED"
    assert simulators.tell("pay", out_trade_no=order_no).status_code == 409
    assert code(pay.pay("充值", order_no, {"total": 1}, payer)) == (400, "ORDER_CLOSED")
    assert inbox.is_quiet()
    late = simulators.tell("pay", out_trade_no=order_no, even_if_closed=True)
    assert late.json()["state"] == "paid"
    assert inbox.take().path == "/wechat-pay"


def test_the_same_order_has_one_prepay_id_and_another_one_is_refused(
    simulators: Simulators, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    _, first = told(pay.pay("充值", order_no, {"total": 100}, payer))
    assert told(pay.pay("充值", order_no, {"total": 100}, payer)) == (200, first)
    assert code(pay.pay("充值", order_no, {"total": 101}, payer)) == (400, "INVALID_REQUEST")
    simulators.tell("pay", out_trade_no=order_no)
    assert code(pay.pay("充值", order_no, {"total": 100}, payer)) == (400, "ORDERPAID")
    assert code(pay.close(order_no)) == (400, "ORDERPAID")


@pytest.mark.parametrize(
    "wrong",
    [
        {"out_trade_no": "12345"},
        {"out_trade_no": "1" * 33},
        {"out_trade_no": "123456\n"},
        {"out_trade_no": "1234567:"},
        {"description": "长" * 128},
        {"amount": {"total": 0}},
        {"amount": {"total": 1.5}},
        {"amount": {"total": 100, "currency": "USD"}},
        {"payer": {"openid": "o" * 28}},
        {"notify_url": "https://example.com/paid?order=1"},
        {"notify_url": "http://example.com/paid"},
        {"notify_url": "ftp://127.0.0.1/paid"},
        {"time_expire": "2020-01-01T00:00:00+08:00"},
        {"mchid": "1900000001"},
    ],
)
def test_an_order_against_the_rules_is_refused(
    pay: Any, payer: dict[str, str], order_no: str, wrong: dict[str, Any]
) -> None:
    asked = {"description": "充值", "out_trade_no": order_no, "amount": {"total": 100}}
    status, content = told(pay.pay(**asked | {"payer": payer} | wrong))
    assert status == 400
    assert content["code"] in {"PARAM_ERROR", "INVALID_REQUEST", "APPID_MCHID_NOT_MATCH"}


def test_an_unknown_order_or_refund_does_not_exist(pay: Any, order_no: str) -> None:
    assert code(pay.query(out_trade_no=order_no)) == (404, "ORDER_NOT_EXIST")
    assert code(pay.close(order_no)) == (404, "ORDER_NOT_EXIST")
    assert code(pay.query_refund(order_no)) == (404, "RESOURCE_NOT_EXISTS")
    amount = {"refund": 1, "total": 1, "currency": "CNY"}
    refund = pay.refund(order_no, amount, out_trade_no=order_no)
    assert code(refund) == (404, "RESOURCE_NOT_EXISTS")


def test_refunds_never_exceed_the_order(
    simulators: Simulators, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    def refund(number: str, amount: int, total: int = 100) -> tuple[int, Any]:
        asked = {"refund": amount, "total": total, "currency": "CNY"}
        return told(pay.refund(number, asked, out_trade_no=order_no))

    pay.pay("充值", order_no, {"total": 100}, payer)
    assert refund(f"{order_no}-1", 60)[1]["code"] == "INVALID_REQUEST"
    simulators.tell("pay", out_trade_no=order_no)
    status, first = refund(f"{order_no}-1", 60)
    assert status == 200
    assert refund(f"{order_no}-1", 60)[1]["refund_id"] == first["refund_id"]
    assert refund(f"{order_no}-1", 59)[1]["code"] == "INVALID_REQUEST"
    assert refund(f"{order_no}-2", 41)[1]["code"] == "INVALID_REQUEST"
    assert refund(f"{order_no}-3", 40, total=99)[1]["code"] == "INVALID_REQUEST"
    assert refund(f"{order_no}-2", 40)[0] == 200
    assert refund(f"{order_no}-4", 1)[1]["code"] == "INVALID_REQUEST"


@pytest.mark.parametrize("outcome", ["abnormal", "closed"])
def test_the_control_plane_decides_how_a_refund_ends(
    simulators: Simulators, inbox: Inbox, pay: Any, payer: dict[str, str], *, outcome: str
) -> None:
    order_no = f"{outcome}-{inbox.url[-5:]}"
    pay.pay("充值", order_no, {"total": 100}, payer)
    simulators.tell("pay", out_trade_no=order_no)
    inbox.take()
    simulators.tell("refunds", out_trade_no=order_no, outcome=outcome)
    amount = {"refund": 100, "total": 100, "currency": "CNY"}
    elsewhere = f"{inbox.url}/wechat-refund"
    pay.refund(f"{order_no}-1", amount, out_trade_no=order_no, notify_url=elsewhere)
    letter = inbox.take()
    notice = pay.callback(letter.headers, letter.body)
    assert letter.path == "/wechat-refund"
    assert notice["event_type"] == f"REFUND.{outcome.upper()}"
    assert notice["resource"]["refund_status"] == outcome.upper()
    assert "success_time" not in notice["resource"]


def test_a_refund_can_stay_on_its_way_until_it_is_ended(
    simulators: Simulators, inbox: Inbox, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    pay.pay("充值", order_no, {"total": 100}, payer)
    simulators.tell("pay", out_trade_no=order_no)
    inbox.take()
    simulators.tell("refunds", out_trade_no=order_no, outcome="processing")
    amount = {"refund": 100, "total": 100, "currency": "CNY"}
    pay.refund(f"{order_no}-1", amount, out_trade_no=order_no)
    assert inbox.is_quiet(for_seconds=1)
    assert told(pay.query_refund(f"{order_no}-1"))[1]["status"] == "PROCESSING"
    end = {"out_trade_no": order_no, "out_refund_no": f"{order_no}-1", "outcome": "success"}
    assert simulators.tell("refunds", **end).status_code == 204
    assert simulators.tell("refunds", **end).status_code == 409
    inbox.take()
    assert told(pay.query_refund(f"{order_no}-1"))[1]["status"] == "SUCCESS"


def test_payers_may_fail_and_pay_later(
    simulators: Simulators, inbox: Inbox, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    assert simulators.tell("pay", out_trade_no=order_no).status_code == 404
    pay.pay("充值", order_no, {"total": 100}, payer)
    assert simulators.tell("fail", out_trade_no=order_no).json()["state"] == "open"
    assert simulators.tell("delay", out_trade_no=order_no, seconds=1.5).json()["pay_at"]
    assert told(pay.query(out_trade_no=order_no))[1]["trade_state"] == "NOTPAY"
    inbox.take()
    assert told(pay.query(out_trade_no=order_no))[1]["trade_state"] == "SUCCESS"
    assert simulators.tell("fail", out_trade_no=order_no).status_code == 409


def test_an_order_nobody_pays_in_time_is_closed(
    simulators: Simulators, pay: Any, payer: dict[str, str], order_no: str
) -> None:
    soon = (simulators.now() + timedelta(seconds=2)).isoformat()
    pay.pay("充值", order_no, {"total": 100}, payer, time_expire=soon)
    sleep(2.5)
    assert told(pay.query(out_trade_no=order_no))[1]["trade_state"] == "CLOSED"


@pytest.mark.parametrize(("seconds", "status"), [(0, 404), (-290, 404), (-310, 401), (310, 401)])
def test_a_request_is_taken_for_five_minutes(
    simulators: Simulators, order_no: str, seconds: int, status: int
) -> None:
    mch_id = simulators.env["WECHAT_PAY_MCH_ID"]
    target = f"/v3/pay/transactions/out-trade-no/{order_no}?mchid={mch_id}"
    at = simulators.now() + timedelta(seconds=seconds)
    signed = merchant_authorization(simulators.env, method="GET", target=target, body=b"", at=at)
    url = f"{simulators.url}{target}"
    answer = httpx.get(url, headers={"Authorization": signed}, trust_env=False)
    assert answer.status_code == status
    assert answer.json()["code"] == ("ORDER_NOT_EXIST" if status == 404 else "SIGN_ERROR")
    other = httpx.get(f"{url}&more=1", headers={"Authorization": signed}, trust_env=False)
    assert other.status_code == 401


def test_a_request_signed_wrong_or_by_somebody_else_is_refused(
    simulators: Simulators, order_no: str
) -> None:
    target = "/v3/pay/transactions/jsapi"
    body = json.dumps({"out_trade_no": order_no}).encode()
    at = simulators.now()
    good = merchant_authorization(simulators.env, method="POST", target=target, body=body, at=at)
    serial, mch_id = (simulators.env[f"WECHAT_PAY_MCH_{name}"] for name in ("SERIAL", "ID"))
    forged = [
        "",
        "Bearer token",
        good.replace(serial, "0" * 40),
        good.replace(mch_id, "1900000001"),
        good.replace('nonce_str="0', 'nonce_str="1'),
        good.replace('signature="', 'signature="*'),
    ]
    for authorization in forged:
        headers = {"Authorization": authorization}
        url = f"{simulators.url}{target}"
        answer = httpx.post(url, content=body, headers=headers, trust_env=False)
        assert (answer.status_code, answer.json()["code"]) == (401, "SIGN_ERROR")
    headers = {"Authorization": good}
    answer = httpx.post(f"{simulators.url}{target}", content=body, headers=headers, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (400, "PARAM_ERROR")
