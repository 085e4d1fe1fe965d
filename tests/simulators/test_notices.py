import json
from typing import Any

import pytest

from tests.simulators.clients import alipay_app, alipay_news, wechat_open_id, wechat_pay
from tests.simulators.listening import Inbox, Letter
from tests.simulators.running import Simulators


@pytest.fixture
def pay(simulators: Simulators, inbox: Inbox) -> Any:
    return wechat_pay(simulators.env, notify_url=f"{inbox.url}/wechat-pay")


@pytest.fixture
def wechat_order(simulators: Simulators, pay: Any, order_no: str) -> str:
    payer = {"openid": wechat_open_id(simulators.env, "sim:zhang")}
    assert pay.pay("充值", order_no, {"total": 100}, payer)[0] == 200
    return order_no


@pytest.fixture
def app(simulators: Simulators) -> Any:
    return alipay_app(simulators.env, at=simulators.now())


@pytest.fixture
def alipay_order(simulators: Simulators, inbox: Inbox, app: Any, order_no: str) -> str:
    asked = {"grant_type": "authorization_code", "code": "sim:zhang"}
    made = app.api_alipay_trade_create(
        "充值",
        order_no,
        "1.00",
        f"{inbox.url}/alipay",
        product_code="JSAPI_PAY",
        op_app_id=simulators.env["ALIPAY_APP_ID"],
        buyer_open_id=app.server_api("alipay.system.oauth.token", **asked)["open_id"],
    )
    assert made["code"] == "10000"
    return order_no


def disturbed(simulators: Simulators, inbox: Inbox, order_no: str, mode: str) -> Letter:
    told = simulators.tell("notices", out_trade_no=order_no, mode=mode)
    assert told.status_code == 204
    simulators.tell("pay", out_trade_no=order_no)
    return inbox.take()


def age_seconds(simulators: Simulators, letter: Letter) -> float:
    return simulators.now().timestamp() - int(letter.headers["Wechatpay-Timestamp"])


@pytest.mark.parametrize("mode", ["tamper_body", "bad_signature", "sign_test"])
def test_wechat_pay_forgeries_do_not_verify(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str, mode: str
) -> None:
    letter = disturbed(simulators, inbox, wechat_order, mode)
    assert pay.callback(letter.headers, letter.body) is None
    assert age_seconds(simulators, letter) < 60
    is_probe = letter.headers["Wechatpay-Signature"].startswith("WECHATPAY/SIGNTEST/")
    assert is_probe == (mode == "sign_test")


def test_wechat_pay_can_send_an_unknown_serial(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    letter = disturbed(simulators, inbox, wechat_order, "unknown_serial")
    serial = letter.headers["Wechatpay-Serial"]
    assert serial.startswith("PUB_KEY_ID_")
    assert serial != simulators.env["WECHAT_PAY_PUBLIC_KEY_ID"]
    assert pay.callback(letter.headers, letter.body) is None


def test_wechat_pay_can_send_what_is_signed_and_wrong(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    letter = disturbed(simulators, inbox, wechat_order, "wrong_amount")
    notice = pay.callback(letter.headers, letter.body)
    assert notice["resource"]["amount"]["total"] == 101
    simulators.tell("notices", out_trade_no=wechat_order, mode="wrong_merchant")
    simulators.tell("resend", out_trade_no=wechat_order)
    letter = inbox.take()
    wrong = pay.callback(letter.headers, letter.body)
    assert wrong["id"] == notice["id"]
    assert wrong["resource"]["mchid"] != simulators.env["WECHAT_PAY_MCH_ID"]
    assert wrong["resource"]["amount"]["total"] == 100


def test_wechat_pay_can_send_a_stale_notice_under_a_good_signature(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    letter = disturbed(simulators, inbox, wechat_order, "old_timestamp")
    assert age_seconds(simulators, letter) > 300
    assert pay.callback(letter.headers, letter.body)["event_type"] == "TRANSACTION.SUCCESS"


def test_only_the_holder_of_the_key_reads_a_notice(
    simulators: Simulators, inbox: Inbox, wechat_order: str
) -> None:
    letter = disturbed(simulators, inbox, wechat_order, "normal")
    other = dict(simulators.env, WECHAT_PAY_API_V3_KEY="0" * 32)
    stranger = wechat_pay(other, notify_url=inbox.url)
    assert stranger.callback(letter.headers, letter.body) is None
    assert "out_trade_no" not in json.loads(letter.body)["resource"]


@pytest.mark.parametrize("mode", ["tamper_body", "bad_signature", "unknown_serial", "sign_test"])
def test_alipay_forgeries_do_not_verify(
    simulators: Simulators, inbox: Inbox, app: Any, alipay_order: str, mode: str
) -> None:
    assert alipay_news(app, disturbed(simulators, inbox, alipay_order, mode)) is None


def test_alipay_can_send_what_is_signed_and_wrong(
    simulators: Simulators, inbox: Inbox, app: Any, alipay_order: str
) -> None:
    wrong = alipay_news(app, disturbed(simulators, inbox, alipay_order, "wrong_amount"))
    assert wrong is not None
    assert wrong["total_amount"] == "11.00"
    for mode, fact in (("wrong_merchant", "seller_id"), ("old_timestamp", "notify_time")):
        simulators.tell("notices", out_trade_no=alipay_order, mode=mode)
        simulators.tell("resend", out_trade_no=alipay_order)
        other = alipay_news(app, inbox.take())
        assert other is not None
        assert other["notify_id"] == wrong["notify_id"]
        assert other[fact] != wrong[fact]


def test_a_notice_can_be_lost_and_found_again(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    simulators.tell("notices", out_trade_no=wechat_order, mode="drop")
    simulators.tell("pay", out_trade_no=wechat_order)
    assert inbox.is_quiet(for_seconds=1)
    simulators.tell("notices", out_trade_no=wechat_order, mode="normal")
    simulators.tell("resend", out_trade_no=wechat_order)
    letter = inbox.take()
    assert pay.callback(letter.headers, letter.body)["event_type"] == "TRANSACTION.SUCCESS"


def test_a_notice_can_come_several_times_at_once(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    asked = {"mode": "duplicate", "copies": 3, "times": 1}
    simulators.tell("notices", out_trade_no=wechat_order, **asked)
    simulators.tell("pay", out_trade_no=wechat_order)
    letters = [inbox.take() for _ in range(3)]
    notices = [pay.callback(letter.headers, letter.body) for letter in letters]
    assert len({notice["id"] for notice in notices}) == 1
    assert len({letter.headers["Wechatpay-Nonce"] for letter in letters}) == 3
    assert inbox.is_quiet()
    simulators.tell("resend", out_trade_no=wechat_order)
    inbox.take()
    assert inbox.is_quiet()


def test_wechat_pay_sends_again_until_acknowledged(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    for answer in ((500, b""), (200, b""), (204, b"")):
        inbox.answers.put(answer)
    simulators.tell("pay", out_trade_no=wechat_order)
    letters = [inbox.take() for _ in range(2)]
    ids = [pay.callback(letter.headers, letter.body)["id"] for letter in letters]
    assert ids[0] == ids[1]
    assert letters[0].headers["Wechatpay-Nonce"] != letters[1].headers["Wechatpay-Nonce"]
    assert inbox.is_quiet()


def test_a_disturbance_may_hold_for_one_send_only(
    simulators: Simulators, inbox: Inbox, pay: Any, wechat_order: str
) -> None:
    inbox.answers.put((401, b""))
    asked = {"mode": "bad_signature", "times": 1}
    simulators.tell("notices", out_trade_no=wechat_order, **asked)
    simulators.tell("pay", out_trade_no=wechat_order)
    forged, genuine = inbox.take(), inbox.take()
    assert pay.callback(forged.headers, forged.body) is None
    assert pay.callback(genuine.headers, genuine.body)["event_type"] == "TRANSACTION.SUCCESS"


def test_an_unknown_mode_is_refused(simulators: Simulators, order_no: str) -> None:
    assert simulators.tell("notices", out_trade_no=order_no, mode="polite").status_code == 400
    assert simulators.tell("resend", out_trade_no=order_no).status_code == 404
