"""The channel `alipay` against the simulated Alipay, and against one that misbehaves."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qsl

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from identity.providers.alipay_gateway import AlipayGateway, AlipayGatewaySettings
from simulators import people
from tests.identity.providers.answering import (
    Asked,
    Respond,
    always,
    answering,
    hang_up,
    keep_silent,
    private_pem,
    public_pem,
    said,
    signature,
)
from tests.simulators.listening import Inbox
from tests.simulators.running import Simulators
from wallet.channels.alipay import Alipay, AlipaySettings
from wallet.channels.channel import (
    Channel,
    ChannelRefused,
    ChannelUnknown,
    NewOrder,
    NewRefund,
    NoticeRefused,
)

Clock = Callable[[], datetime]
NOW = datetime(2026, 3, 1, 18, 5, 6, tzinfo=UTC)


@pytest.fixture
async def channel(simulators: Simulators, clock: Clock, inbox: Inbox) -> AsyncIterator[Alipay]:
    settings = AlipaySettings(
        seller_id=simulators.env["ALIPAY_SELLER_ID"], notify_url=f"{inbox.url}/alipay"
    )
    channel = Alipay(AlipayGateway(_gateway_settings(simulators), clock), settings)
    yield channel
    await channel.disconnect()


def _gateway_settings(simulators: Simulators) -> AlipayGatewaySettings:
    env = simulators.env
    return AlipayGatewaySettings(
        gateway_url=env["ALIPAY_GATEWAY_URL"],
        app_id=env["ALIPAY_APP_ID"],
        app_private_key=Path(env["ALIPAY_APP_KEY_FILE"]).read_text(),
        alipay_public_key=Path(env["ALIPAY_PUBLIC_KEY_FILE"]).read_text(),
    )


def _order(simulators: Simulators, order_no: str, clock: Clock) -> NewOrder:
    return NewOrder(
        out_trade_no=order_no,
        amount_fen=10029,
        description="园卡充值 {100.29 元}",
        payer_open_id=people.alipay_open_id(simulators.env["ALIPAY_APP_ID"], "wang"),
        payer_user_id=None,
        expires_at=clock() + timedelta(minutes=15),
    )


def _refund(order_no: str, refund_no: str, amount_fen: int) -> NewRefund:
    return NewRefund(
        out_trade_no=order_no,
        out_refund_no=refund_no,
        amount_fen=amount_fen,
        total_fen=10029,
        reason="退款",
    )


async def test_an_order_is_created_paid_told_of_refunded_and_found_at_every_step(
    channel: Alipay, simulators: Simulators, clock: Clock, inbox: Inbox, order_no: str
) -> None:
    by_protocol: Channel = channel
    assert (await by_protocol.query(order_no)).state == "absent"
    order = _order(simulators, order_no, clock)
    pay = await by_protocol.create(order)
    assert set(pay) == {"tradeNO"}
    assert await by_protocol.create(order) == pay
    waiting = await by_protocol.query(order_no)
    assert (waiting.state, waiting.amount_fen, waiting.paid_at) == ("paying", 10029, None)

    simulators.tell("pay", out_trade_no=order_no)
    letter = inbox.take()
    notice = by_protocol.notice_of(letter.body, letter.headers)
    found = await by_protocol.query(order_no)
    assert (found.state, found.amount_fen, found.currency) == ("paid", 10029, "CNY")
    assert found.funding == "ALIPAYACCOUNT"
    assert found.channel_txn_no == pay["tradeNO"]
    # What we are told and what we find is the same payment.
    assert (notice.kind, notice.state, notice.amount_fen) == ("payment", "paid", 10029)
    assert (notice.app_id, notice.merchant_id) == (found.app_id, found.merchant_id)
    assert (notice.channel_txn_no, notice.at) == (found.channel_txn_no, found.paid_at)

    refund_no = f"RF{order_no[2:]}"
    assert (await by_protocol.query_refund(order_no, refund_no)).state == "absent"
    given = await by_protocol.refund(_refund(order_no, refund_no, 29))
    assert (given.state, given.amount_fen) == ("succeeded", 29)
    assert given.at is not None
    # The repeat moves nothing, and says what the first one did.
    assert await by_protocol.refund(_refund(order_no, refund_no, 29)) == given
    assert await by_protocol.query_refund(order_no, refund_no) == given
    letter = inbox.take()
    told = by_protocol.notice_of(letter.body, letter.headers)
    assert (told.kind, told.amount_fen, told.out_refund_no) == ("refund", 29, refund_no)
    assert (await by_protocol.query(order_no)).state == "paid"

    rest_no = f"RG{order_no[2:]}"
    assert (await by_protocol.refund(_refund(order_no, rest_no, 10000))).state == "succeeded"
    letter = inbox.take()
    told = by_protocol.notice_of(letter.body, letter.headers)
    # Alipay closes what it has given back in full, and counts up in its notices.
    assert (told.kind, told.state, told.amount_fen) == ("refund", "succeeded", 10029)
    found = await by_protocol.query(order_no)
    assert (found.state, found.amount_fen) == ("refunded", 10029)


async def test_a_closed_order_may_be_closed_again_and_is_told_of(
    channel: Alipay, simulators: Simulators, clock: Clock, inbox: Inbox, order_no: str
) -> None:
    await channel.close(order_no)
    order = _order(simulators, order_no, clock)
    await channel.create(order)
    await channel.close(order_no)
    await channel.close(order_no)
    assert (await channel.query(order_no)).state == "closed"
    letter = inbox.take()
    notice = channel.notice_of(letter.body, letter.headers)
    assert (notice.kind, notice.state) == ("payment", "closed")
    with pytest.raises(ChannelUnknown):
        await channel.create(order)


async def test_a_paid_order_can_be_neither_closed_nor_created_again(
    channel: Alipay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    order = _order(simulators, order_no, clock)
    await channel.create(order)
    simulators.tell("pay", out_trade_no=order_no)
    with pytest.raises(ChannelRefused) as refused:
        await channel.close(order_no)
    assert refused.value.facts == {"provider_code": "ACQ.TRADE_STATUS_ERROR"}
    with pytest.raises(ChannelUnknown) as unknown:
        await channel.create(order)
    assert unknown.value.facts == {
        "cause": "provider-code",
        "provider_code": "ACQ.TRADE_HAS_SUCCESS",
    }


async def test_a_refund_on_its_way_is_neither_given_nor_lost(
    channel: Alipay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("pay", out_trade_no=order_no)
    simulators.tell("refunds", out_trade_no=order_no, outcome="processing")
    refund = _refund(order_no, f"RF{order_no[2:]}", 100)
    assert (await channel.refund(refund)).state == "processing"
    told = simulators.tell(
        "refunds", out_trade_no=order_no, outcome="success", out_refund_no=refund.out_refund_no
    )
    assert told.status_code == 204
    assert (await channel.refund(refund)).state == "succeeded"


async def test_definite_noes_are_refusals(
    channel: Alipay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    with pytest.raises(ChannelRefused) as refused:
        await channel.refund(_refund(order_no, "RF1", 1))
    assert refused.value.facts == {"provider_code": "ACQ.TRADE_NOT_EXIST"}
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("pay", out_trade_no=order_no)
    with pytest.raises(ChannelRefused):
        await channel.refund(_refund(order_no, f"RF{order_no[2:]}", 10030))
    simulators.tell("refunds", out_trade_no=order_no, outcome="abnormal")
    with pytest.raises(ChannelRefused) as refused:
        await channel.refund(_refund(order_no, f"RF{order_no[2:]}", 1))
    assert refused.value.facts == {"provider_code": "ACQ.SELLER_BALANCE_NOT_ENOUGH"}


@pytest.mark.parametrize("mode", ["tamper_body", "bad_signature"])
async def test_what_the_simulator_spoils_is_refused(
    channel: Alipay,
    *,
    simulators: Simulators,
    clock: Clock,
    inbox: Inbox,
    order_no: str,
    mode: str,
) -> None:
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("notices", out_trade_no=order_no, mode=mode)
    simulators.tell("pay", out_trade_no=order_no)
    letter = inbox.take()
    with pytest.raises(NoticeRefused, match="bad-signature"):
        channel.notice_of(letter.body, letter.headers)


async def test_a_wrong_amount_or_seller_is_there_for_the_caller_to_see(
    channel: Alipay, simulators: Simulators, clock: Clock, inbox: Inbox, order_no: str
) -> None:
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("notices", out_trade_no=order_no, mode="wrong_amount", times=1)
    simulators.tell("pay", out_trade_no=order_no)
    letter = inbox.take()
    assert channel.notice_of(letter.body, letter.headers).amount_fen == 110029
    simulators.tell("notices", out_trade_no=order_no, mode="wrong_merchant", times=1)
    simulators.tell("resend", out_trade_no=order_no)
    letter = inbox.take()
    merchant_id = channel.notice_of(letter.body, letter.headers).merchant_id
    assert merchant_id != simulators.env["ALIPAY_SELLER_ID"]


async def test_another_key_of_ours_is_a_refusal(
    simulators: Simulators, clock: Clock, our_key: RSAPrivateKey
) -> None:
    app_id = simulators.env["ALIPAY_APP_ID"]
    url = simulators.env["ALIPAY_GATEWAY_URL"]
    channel = _channel(url, our_key, our_key, clock=clock, app_id=app_id)
    with pytest.raises(ChannelRefused) as refused:
        await channel.query("RC000001")
    await channel.disconnect()
    assert refused.value.facts == {"provider_code": "isv.invalid-signature"}


# From here on: an Alipay that misbehaves.

ORDER = NewOrder(
    out_trade_no="RC000001",
    amount_fen=10029,
    description="x",
    payer_open_id="o1",
    payer_user_id="2088000000000001",
    expires_at=NOW,
)
TRADE = {
    "code": "10000",
    "out_trade_no": "RC000001",
    "trade_no": "2026",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "100.29",
}


def _channel(
    url: str,
    our_key: RSAPrivateKey,
    alipay_key: RSAPrivateKey,
    *,
    clock: Clock = lambda: NOW,
    app_id: str = "2021000000000001",
) -> Alipay:
    settings = AlipayGatewaySettings(
        gateway_url=url,
        app_id=app_id,
        app_private_key=private_pem(our_key),
        alipay_public_key=public_pem(alipay_key.public_key()),
    )
    return Alipay(
        AlipayGateway(settings, clock, total_seconds=0.5),
        AlipaySettings(seller_id="2088000000000009", notify_url="https://yuanka.example/alipay"),
    )


class Answers:
    """An Alipay that signs whatever it is told to say to a method, and keeps what it was asked."""

    def __init__(self, key: RSAPrivateKey, contents: dict[str, dict[str, object]]) -> None:
        self.key, self.contents = key, contents
        self.asked: list[dict[str, str]] = []

    async def respond(self, asked: Asked) -> bytes:
        form = dict(parse_qsl(asked.body.decode()))
        self.asked.append(form)
        text = json.dumps(self.contents[form["method"]], ensure_ascii=False)
        name = f"{form['method'].replace('.', '_')}_response"
        sign = signature(self.key, text.encode())
        return said(f'{{"{name}":{text},"sign":"{sign}"}}'.encode())


def _calls(channel: Alipay) -> dict[str, Callable[[], Awaitable[object]]]:
    return {
        "alipay.trade.create": lambda: channel.create(ORDER),
        "alipay.trade.query": lambda: channel.query("RC000001"),
        "alipay.trade.close": lambda: channel.close("RC000001"),
        "alipay.trade.refund": lambda: channel.refund(_refund("RC000001", "RF000001", 1)),
        "alipay.trade.fastpay.refund.query": lambda: channel.query_refund("RC000001", "RF000001"),
    }


@pytest.mark.parametrize(
    ("respond", "cause"),
    [
        (keep_silent, "time-out"),
        (hang_up, "unreachable"),
        (always(said(b"", status=504)), "http-504"),
        (always(said(b"<html>")), "unreadable"),
        (always(said(b'{"error_response":{"code":"40004","sub_code":"x"}}')), "bad-signature"),
        (always(said(b'{"error_response":{"code":"20000"}}')), "bad-signature"),
    ],
)
async def test_whatever_is_no_proven_answer_is_unknown(
    respond: Respond, cause: str, our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    async with answering(respond) as url:
        channel = _channel(url, our_key, provider_key)
        for call in _calls(channel).values():
            with pytest.raises(ChannelUnknown) as unknown:
                await call()
            assert unknown.value.facts == {"cause": cause}
        await channel.disconnect()


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ({"code": "20000", "sub_code": "isp.unknow-error"}, "isp.unknow-error"),
        ({"code": "20000"}, "20000"),
        ({"code": "10003"}, "10003"),
        ({"code": "40004", "sub_code": "ACQ.SYSTEM_ERROR"}, "ACQ.SYSTEM_ERROR"),
        ({"code": "40004", "sub_code": "aop.ACQ.SYSTEM_ERROR"}, "aop.ACQ.SYSTEM_ERROR"),
    ],
)
async def test_alipays_own_trouble_is_unknown(
    content: dict[str, object], code: str, our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    methods = _calls(_channel("http://127.0.0.1:1", our_key, provider_key))
    answers = Answers(provider_key, dict.fromkeys(methods, content))
    async with answering(answers.respond) as url:
        channel = _channel(url, our_key, provider_key)
        for call in _calls(channel).values():
            with pytest.raises(ChannelUnknown) as unknown:
                await call()
            assert unknown.value.facts == {"cause": "provider-code", "provider_code": code}
        await channel.disconnect()


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({}, "paid"),
        ({"trade_status": "TRADE_FINISHED"}, "paid"),
        ({"trade_status": "WAIT_BUYER_PAY"}, "paying"),
        ({"trade_status": "TRADE_CLOSED"}, "closed"),
        ({"trade_status": "TRADE_CLOSED", "send_pay_date": "2026-03-02 02:05:06"}, "refunded"),
        ({"trade_status": "TRADE_MADE_UP"}, None),
        ({"trade_status": None}, None),
        ({"total_amount": "100.291"}, None),
        ({"total_amount": 100.29}, None),
        ({"out_trade_no": "RC000002"}, None),
        ({"send_pay_date": "yesterday"}, None),
    ],
)
async def test_every_trade_status_has_its_meaning(
    changed: dict[str, object],
    state: str | None,
    our_key: RSAPrivateKey,
    provider_key: RSAPrivateKey,
) -> None:
    answers = Answers(provider_key, {"alipay.trade.query": TRADE | changed})
    async with answering(answers.respond) as url:
        channel = _channel(url, our_key, provider_key)
        if state is None:
            with pytest.raises(ChannelUnknown) as unknown:
                await channel.query("RC000001")
            assert unknown.value.facts == {"cause": "unreadable"}
        else:
            assert (await channel.query("RC000001")).state == state
        await channel.disconnect()


@pytest.mark.parametrize(
    ("refund", "query", "state"),
    [
        ({"fund_change": "Y"}, None, "succeeded"),
        ({"fund_change": "N"}, {}, "processing"),
        ({}, {}, "processing"),
        ({"fund_change": "N"}, {"refund_status": "REFUND_SUCCESS"}, "succeeded"),
        ({"fund_change": "N"}, {"refund_status": "REFUND_PROCESSING"}, "processing"),
        ({"fund_change": "N"}, {"refund_status": "REFUND_FAIL"}, "failed"),
        ({"fund_change": "N"}, {"refund_status": "MADE_UP"}, None),
        ({"fund_change": "N"}, {"refund_status": "REFUND_SUCCESS", "out_request_no": "X"}, None),
        ({"fund_change": "N"}, {"refund_status": "REFUND_SUCCESS", "refund_amount": "x"}, None),
        ({"fund_change": "Y", "gmt_refund_pay": "x"}, None, None),
    ],
)
async def test_a_refund_is_given_only_if_money_moved(
    refund: dict[str, object],
    query: dict[str, object] | None,
    *,
    state: str | None,
    our_key: RSAPrivateKey,
    provider_key: RSAPrivateKey,
) -> None:
    contents: dict[str, dict[str, object]] = {"alipay.trade.refund": {"code": "10000"} | refund}
    if query is not None:
        known = {"code": "10000", "out_request_no": "RF000001", "refund_amount": "0.01"}
        contents["alipay.trade.fastpay.refund.query"] = known | query
    answers = Answers(provider_key, contents)
    async with answering(answers.respond) as url:
        channel = _channel(url, our_key, provider_key)
        if state is None:
            with pytest.raises(ChannelUnknown):
                await channel.refund(_refund("RC000001", "RF000001", 1))
        else:
            assert (await channel.refund(_refund("RC000001", "RF000001", 1))).state == state
        await channel.disconnect()
    assert len(answers.asked) == len(contents)


@pytest.mark.parametrize(
    ("open_id", "user_id", "buyer"),
    [
        ("o1", None, {"buyer_open_id": "o1"}),
        ("o1", "2088000000000001", {"buyer_open_id": "o1"}),
        ("2088000000000001", "2088000000000001", {"buyer_id": "2088000000000001"}),
        ("", "2088000000000001", {"buyer_id": "2088000000000001"}),
    ],
)
async def test_the_order_names_its_payer_by_the_id_that_alipay_gave(
    open_id: str,
    user_id: str | None,
    *,
    buyer: dict[str, str],
    our_key: RSAPrivateKey,
    provider_key: RSAPrivateKey,
) -> None:
    created: dict[str, object] = {"code": "10000", "out_trade_no": "RC000001", "trade_no": "2026"}
    answers = Answers(provider_key, {"alipay.trade.create": created})
    order = NewOrder(
        out_trade_no="RC000001",
        amount_fen=5,
        description="x",
        payer_open_id=open_id,
        payer_user_id=user_id,
        expires_at=NOW,
    )
    async with answering(answers.respond) as url:
        channel = _channel(url, our_key, provider_key)
        assert await channel.create(order) == {"tradeNO": "2026"}
        await channel.disconnect()
    assert json.loads(answers.asked[0]["biz_content"]) == {
        "out_trade_no": "RC000001",
        "total_amount": "0.05",
        "subject": "x",
        "product_code": "JSAPI_PAY",
        "op_app_id": "2021000000000001",
        "time_expire": "2026-03-02 02:05:06",
        **buyer,
    }
    assert answers.asked[0]["notify_url"] == "https://yuanka.example/alipay"
