import json
from base64 import b64decode
from datetime import timedelta
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from tests.simulators.clients import alipay, alipay_app, alipay_news
from tests.simulators.listening import Inbox
from tests.simulators.running import Simulators

AliPayException = alipay.exceptions.AliPayException


@pytest.fixture
def app(simulators: Simulators) -> Any:
    return alipay_app(simulators.env, at=simulators.now())


@pytest.fixture
def trade(simulators: Simulators, inbox: Inbox, order_no: str) -> dict[str, str]:
    """What a trade of this test is created from."""
    app = alipay_app(simulators.env, at=simulators.now())
    return {
        "subject": "一卡通充值",
        "out_trade_no": order_no,
        "total_amount": "50.00",
        "notify_url": f"{inbox.url}/alipay",
        "product_code": "JSAPI_PAY",
        "op_app_id": simulators.env["ALIPAY_APP_ID"],
        "buyer_open_id": sign_in(app, "sim:zhang")["open_id"],
    }


def sign_in(app: Any, code: str) -> dict[str, str]:
    told: dict[str, str] = app.server_api(
        "alipay.system.oauth.token", grant_type="authorization_code", code=code
    )
    return told


def refund_query(app: Any, order_no: str, request_no: str) -> dict[str, str]:
    asked = {"out_trade_no": order_no, "out_request_no": request_no}
    told: dict[str, str] = app.server_api("alipay.trade.fastpay.refund.query", asked)
    return told


def test_the_sdk_goes_the_whole_way(
    simulators: Simulators, inbox: Inbox, app: Any, trade: dict[str, str]
) -> None:
    order_no = trade["out_trade_no"]
    made = app.api_alipay_trade_create(**trade)
    assert made["code"] == "10000"
    assert app.api_alipay_trade_create(**trade)["trade_no"] == made["trade_no"]
    assert app.api_alipay_trade_query(order_no)["trade_status"] == "WAIT_BUYER_PAY"

    simulators.tell("pay", out_trade_no=order_no)
    news = alipay_news(app, inbox.take())
    assert news is not None
    facts = ("trade_status", "out_trade_no", "trade_no", "total_amount", "subject")
    said = ["TRADE_SUCCESS", order_no, made["trade_no"], "50.00", "一卡通充值"]
    assert [news[fact] for fact in facts] == said
    assert news["app_id"] == simulators.env["ALIPAY_APP_ID"]
    assert news["seller_id"] == simulators.env["ALIPAY_SELLER_ID"]
    assert news["buyer_open_id"] == trade["buyer_open_id"]
    shown = app.api_alipay_trade_query(trade_no=made["trade_no"])
    assert (shown["trade_status"], shown["total_amount"]) == ("TRADE_SUCCESS", "50.00")

    first = app.api_alipay_trade_refund("20.00", order_no, out_request_no="R1")
    assert (first["fund_change"], first["refund_fee"]) == ("Y", "20.00")
    again = app.api_alipay_trade_refund("20.00", order_no, out_request_no="R1")
    assert (again["fund_change"], again["refund_fee"]) == ("N", "20.00")
    news = alipay_news(app, inbox.take())
    assert news is not None
    assert (news["trade_status"], news["refund_fee"]) == ("TRADE_SUCCESS", "20.00")
    assert (news["out_biz_no"], "gmt_refund" in news) == ("R1", True)
    shown = refund_query(app, order_no, "R1")
    assert (shown["refund_status"], shown["refund_amount"]) == ("REFUND_SUCCESS", "20.00")

    app.api_alipay_trade_refund("30.00", order_no, out_request_no="R2")
    news = alipay_news(app, inbox.take())
    assert news is not None
    assert (news["trade_status"], news["refund_fee"]) == ("TRADE_CLOSED", "50.00")
    assert app.api_alipay_trade_query(order_no)["trade_status"] == "TRADE_CLOSED"
    assert inbox.is_quiet()


def test_a_person_is_always_the_same_and_has_a_user_id_only_at_old_apps(app: Any) -> None:
    first, again = sign_in(app, "sim:zhang"), sign_in(app, "sim:zhang")
    assert first["open_id"] == again["open_id"] != sign_in(app, "sim:li")["open_id"]
    assert "user_id" not in first
    old = sign_in(app, "sim:zhang+uid")
    assert len(old["user_id"]) == 16
    assert old["user_id"].startswith("2088")


def test_no_other_code_signs_anybody_in(app: Any) -> None:
    with pytest.raises(AliPayException) as refused:
        sign_in(app, "zhang")
    told = json.loads(str(refused.value).partition("message:")[2])
    assert told["error_response"]["sub_code"] == "isv.code-invalid"
    assert told["sign"]


def test_a_trade_is_paid_by_user_id_where_that_is_known(
    simulators: Simulators, inbox: Inbox, app: Any, trade: dict[str, str]
) -> None:
    user_id = sign_in(app, "sim:old+uid")["user_id"]
    trade = {**trade, "buyer_open_id": "", "buyer_id": user_id}
    assert app.api_alipay_trade_create(**trade)["code"] == "10000"
    simulators.tell("pay", out_trade_no=trade["out_trade_no"])
    news = alipay_news(app, inbox.take())
    assert news is not None
    assert news["buyer_id"] == user_id
    shown = app.api_alipay_trade_query(trade["out_trade_no"])
    assert (shown["buyer_user_id"], "buyer_open_id" in shown) == (user_id, False)


@pytest.mark.parametrize(
    ("wrong", "sub_code"),
    [
        ({"total_amount": "50.001"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "0"}, "ACQ.INVALID_PARAMETER"),
        ({"total_amount": "-1"}, "ACQ.INVALID_PARAMETER"),
        ({"subject": ""}, "ACQ.INVALID_PARAMETER"),
        ({"op_app_id": "2021"}, "ACQ.INVALID_PARAMETER"),
        ({"product_code": "QUICK_WAP_WAY"}, "ACQ.INVALID_PARAMETER"),
        ({"buyer_open_id": "oWeChat"}, "ACQ.INVALID_PARAMETER"),
        ({"notify_url": "http://example.com/"}, "ACQ.INVALID_PARAMETER"),
        ({"time_expire": "2020-01-01 00:00:00"}, "ACQ.INVALID_PARAMETER"),
    ],
)
def test_a_trade_against_the_rules_is_refused(
    app: Any, trade: dict[str, str], wrong: dict[str, str], sub_code: str
) -> None:
    told = app.api_alipay_trade_create(**trade | wrong)
    assert (told["code"], told["sub_code"]) == ("40004", sub_code)


def test_the_same_number_is_no_other_trade(
    simulators: Simulators, app: Any, trade: dict[str, str]
) -> None:
    def create(**other: str) -> str:
        told: dict[str, str] = app.api_alipay_trade_create(**trade | other)
        return told["sub_code"]

    app.api_alipay_trade_create(**trade)
    assert create(total_amount="50.01") == "ACQ.CONTEXT_INCONSISTENT"
    simulators.tell("pay", out_trade_no=trade["out_trade_no"])
    assert create() == "ACQ.TRADE_HAS_SUCCESS"
    assert app.api_alipay_trade_close(trade["out_trade_no"])["sub_code"] == "ACQ.TRADE_STATUS_ERROR"


def test_a_closed_trade_is_told_of_without_a_refund(
    inbox: Inbox, app: Any, trade: dict[str, str]
) -> None:
    app.api_alipay_trade_create(**trade)
    assert app.api_alipay_trade_close(trade["out_trade_no"])["code"] == "10000"
    news = alipay_news(app, inbox.take())
    assert news is not None
    assert (news["trade_status"], "refund_fee" in news) == ("TRADE_CLOSED", False)
    assert app.api_alipay_trade_query(trade["out_trade_no"])["trade_status"] == "TRADE_CLOSED"
    assert app.api_alipay_trade_create(**trade)["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


def test_an_unknown_trade_does_not_exist(app: Any, order_no: str) -> None:
    assert app.api_alipay_trade_query(order_no)["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert app.api_alipay_trade_close(order_no)["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    assert app.api_alipay_trade_refund("1", order_no)["sub_code"] == "ACQ.TRADE_NOT_EXIST"


def test_refunds_never_exceed_the_trade(
    simulators: Simulators, app: Any, trade: dict[str, str]
) -> None:
    order_no = trade["out_trade_no"]

    def refund(amount: str, **numbered: str) -> dict[str, str]:
        told: dict[str, str] = app.api_alipay_trade_refund(amount, order_no, **numbered)
        return told

    app.api_alipay_trade_create(**trade)
    assert refund("50.00")["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    simulators.tell("pay", out_trade_no=order_no)
    assert refund("20.00")["sub_code"] == "ACQ.REFUND_AMT_NOT_EQUAL_TOTAL"
    assert refund("20.00", out_request_no="R1")["fund_change"] == "Y"
    assert refund("20.01", out_request_no="R1")["sub_code"] == "ACQ.DISCORDANT_REPEAT_REQUEST"
    assert refund("30.01", out_request_no="R2")["sub_code"] == "ACQ.REASON_TRADE_REFUND_FEE_ERR"
    assert "refund_status" not in refund_query(app, order_no, "R2")
    assert refund("30.00", out_request_no="R2")["fund_change"] == "Y"


def test_the_control_plane_decides_how_a_refund_ends(
    simulators: Simulators, inbox: Inbox, app: Any, trade: dict[str, str]
) -> None:
    order_no = trade["out_trade_no"]
    app.api_alipay_trade_create(**trade)
    simulators.tell("pay", out_trade_no=order_no)
    inbox.take()
    simulators.tell("refunds", out_trade_no=order_no, outcome="abnormal")
    short = app.api_alipay_trade_refund("5", order_no, out_request_no="R1")
    assert short["sub_code"] == "ACQ.SELLER_BALANCE_NOT_ENOUGH"
    simulators.tell("refunds", out_trade_no=order_no, outcome="processing")
    unsure = app.api_alipay_trade_refund("5", order_no, out_request_no="R1")
    assert (unsure["fund_change"], unsure["refund_fee"]) == ("N", "0.00")
    assert "refund_status" not in refund_query(app, order_no, "R1")
    assert inbox.is_quiet()
    simulators.tell("refunds", out_trade_no=order_no, out_refund_no="R1", outcome="success")
    assert inbox.take().path == "/alipay"
    assert refund_query(app, order_no, "R1")["refund_status"] == "REFUND_SUCCESS"


def gateway(simulators: Simulators, app: Any, changed: dict[str, str]) -> dict[str, Any]:
    body = app.build_body("alipay.trade.query", {"out_trade_no": "1"})
    params = dict(httpx.QueryParams(app.sign_data(body))) | changed
    url = simulators.env["ALIPAY_GATEWAY_URL"]
    told: dict[str, Any] = httpx.post(url, data=params, trust_env=False).json()
    return told


@pytest.mark.parametrize(
    ("changed", "sub_code"),
    [
        ({"app_id": "2021"}, "isv.invalid-app-id"),
        ({"sign": ""}, "isv.missing-signature"),
        ({"sign_type": "RSA"}, "isv.invalid-signature-type"),
        ({"charset": "gbk"}, "isv.invalid-charset"),
        ({"biz_content": '{"out_trade_no":"2"}'}, "isv.invalid-signature"),
        ({"sign": "AAAA"}, "isv.invalid-signature"),
    ],
)
def test_a_request_signed_wrong_is_refused_unsigned(
    simulators: Simulators, app: Any, changed: dict[str, str], sub_code: str
) -> None:
    told = gateway(simulators, app, changed)
    assert told["alipay_trade_query_response"]["sub_code"] == sub_code
    assert "sign" not in told
    assert gateway(simulators, app, {})["sign"]


@pytest.mark.parametrize("minutes", [-8 * 60, -11, 11, 8 * 60])
def test_a_clock_that_is_off_is_refused(simulators: Simulators, minutes: int) -> None:
    app = alipay_app(simulators.env, at=simulators.now() + timedelta(minutes=minutes))
    told = gateway(simulators, app, {})
    assert told["alipay_trade_query_response"]["sub_code"] == "isv.invalid-timestamp"


def test_an_unknown_method_is_refused_namelessly(app: Any) -> None:
    with pytest.raises(AliPayException, match=r'"error_response".*isv\.invalid-method'):
        app.server_api("alipay.trade.nothing")


def test_the_phone_button_hands_over_a_signed_and_encrypted_number(
    simulators: Simulators, app: Any
) -> None:
    pressed = simulators.tell("alipay/phone", code="sim:zhang").json()
    assert app._verify(f'"{pressed["response"]}"', pressed["sign"])
    assert not app._verify(pressed["response"], pressed["sign"])
    key = b64decode(simulators.env["ALIPAY_AES_KEY"])
    decryptor = Cipher(AES(key), CBC(bytes(16))).decryptor()
    padded = decryptor.update(b64decode(pressed["response"])) + decryptor.finalize()
    told = json.loads(padded[: -padded[-1]])
    assert told["code"] == "10000"
    assert told["mobile"].startswith("139")
    assert simulators.tell("alipay/phone", code="x").json()["response"]["code"] == "40003"
