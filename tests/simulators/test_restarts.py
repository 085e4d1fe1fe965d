import json
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE
from typing import Any

import httpx
import pytest

from tests.simulators.clients import alipay_app, alipay_news, wechat_open_id, wechat_pay
from tests.simulators.listening import Inbox
from tests.simulators.running import Simulators, start_simulators

# 4 minutes become 0.24 s, and all 25 hours of Alipay's pauses 90 s.
QUICK = 0.001


@pytest.fixture
def quick(tmp_path: Path) -> Iterator[Simulators]:
    with start_simulators(tmp_path, QUICK) as running:
        yield running


def make_order(simulators: Simulators, inbox: Inbox, order_no: str) -> Any:
    pay = wechat_pay(simulators.env, notify_url=f"{inbox.url}/wechat-pay")
    payer = {"openid": wechat_open_id(simulators.env, "sim:zhang")}
    assert pay.pay("充值", order_no, {"total": 100}, payer)[0] == 200
    return pay


def notices(simulators: Simulators, order_no: str) -> list[dict[str, Any]]:
    params = {"out_trade_no": order_no}
    answer = httpx.get(f"{simulators.control}/notices", params=params, trust_env=False)
    told: list[dict[str, Any]] = answer.json()
    return told


def test_what_was_paid_before_a_kill_is_refunded_after_it(
    tmp_path: Path, inbox: Inbox, order_no: str
) -> None:
    with start_simulators(tmp_path) as before:
        make_order(before, inbox, order_no)
        before.tell("pay", out_trade_no=order_no)
        inbox.take()
        before.kill()
    with start_simulators(tmp_path) as after:
        assert same_but_url(before.env) == same_but_url(after.env)
        assert after.env["WECHAT_BASE_URL"] == after.url
        pay = wechat_pay(after.env, notify_url=f"{inbox.url}/wechat-refund")
        amount = {"refund": 100, "total": 100, "currency": "CNY"}
        assert pay.refund(order_no, amount, out_trade_no=order_no)[0] == 200
        # The payment's acknowledgement may have died with the process; then it is told again.
        letter = inbox.take()
        while letter.path != "/wechat-refund":
            letter = inbox.take()
        assert pay.callback(letter.headers, letter.body)["event_type"] == "REFUND.SUCCESS"


def same_but_url(env: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if not name.endswith("URL")}


def test_what_was_not_acknowledged_before_a_kill_is_sent_after_it(
    tmp_path: Path, inbox: Inbox, order_no: str
) -> None:
    with start_simulators(tmp_path, 0.1) as before:
        pay = make_order(before, inbox, order_no)
        make_order(before, inbox, f"{order_no}-2")
        inbox.answers.put((500, b""))
        before.tell("delay", out_trade_no=f"{order_no}-2", seconds=3)
        before.tell("pay", out_trade_no=order_no)
        first = inbox.take()
        before.kill()
    with start_simulators(tmp_path, 0.1):
        letters = [first, inbox.take(), inbox.take()]
    told = [pay.callback(letter.headers, letter.body) for letter in letters]
    numbers = [notice["resource"]["out_trade_no"] for notice in told]
    assert sorted(numbers) == [order_no, order_no, f"{order_no}-2"]
    assert len({notice["id"] for notice in told}) == 2


def test_alipay_sends_again_until_the_answer_is_success(
    quick: Simulators, inbox: Inbox, order_no: str
) -> None:
    app = alipay_app(quick.env, at=quick.now())
    asked = {"grant_type": "authorization_code", "code": "sim:zhang"}
    app.api_alipay_trade_create(
        "充值",
        order_no,
        "1.00",
        f"{inbox.url}/alipay",
        product_code="JSAPI_PAY",
        op_app_id=quick.env["ALIPAY_APP_ID"],
        buyer_open_id=app.server_api("alipay.system.oauth.token", **asked)["open_id"],
    )
    for answer in ((200, b"SUCCESS"), (204, b""), (200, b"success\n")):
        inbox.answers.put(answer)
    quick.tell("pay", out_trade_no=order_no)
    told = [alipay_news(app, inbox.take()) for _ in range(4)]
    assert len({news["notify_id"] for news in told if news}) == 1
    assert all(told)
    assert inbox.is_quiet(for_seconds=1)
    assert notices(quick, order_no)[0]["is_acknowledged"] is True


def test_the_provider_gives_up_in_the_end(tmp_path: Path, inbox: Inbox, order_no: str) -> None:
    with start_simulators(tmp_path, 0.00001) as hasty:
        make_order(hasty, inbox, order_no)
        for _ in range(16):
            inbox.answers.put((500, b'{"code":"FAIL"}'))
        hasty.tell("pay", out_trade_no=order_no)
        for _ in range(16):
            inbox.take()
        assert inbox.is_quiet(for_seconds=1)
        (told,) = notices(hasty, order_no)
    assert (told["sends"], told["is_acknowledged"], told["next_at"]) == (16, False, None)


def test_keys_and_settings_are_for_their_owner_only(quick: Simulators, tmp_path: Path) -> None:
    assert S_IMODE(tmp_path.stat().st_mode) == 0o700
    assert {S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    for name, value in quick.env.items():
        assert value
        if name.endswith("_FILE"):
            kind = "PUBLIC" if "PUBLIC" in name else "PRIVATE"
            assert Path(value).read_text().startswith(f"-----BEGIN {kind} KEY-----\n")
    assert len(quick.env["WECHAT_PAY_API_V3_KEY"]) == 32
    assert len(json.loads((tmp_path / "ids.json").read_text())) == 9
