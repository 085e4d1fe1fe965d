"""The channel `wechat_pay` against the simulated WeChat Pay, and against one that misbehaves."""

import asyncio
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

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
from wallet.channels.channel import (
    Channel,
    ChannelRefused,
    ChannelUnknown,
    NewOrder,
    NewRefund,
    NoticeRefused,
    RefundFound,
)
from wallet.channels.wechat_pay import WechatPay, WechatPaySettings

Clock = Callable[[], datetime]
NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
SERIAL = "PUB_KEY_ID_01"


@pytest.fixture
async def channel(simulators: Simulators, clock: Clock, inbox: Inbox) -> AsyncIterator[WechatPay]:
    channel = WechatPay(_settings(simulators, inbox), clock)
    yield channel
    await channel.disconnect()


def _settings(simulators: Simulators, inbox: Inbox) -> WechatPaySettings:
    env = simulators.env
    return WechatPaySettings(
        base_url=env["WECHAT_PAY_BASE_URL"],
        app_id=env["WECHAT_APP_ID"],
        mch_id=env["WECHAT_PAY_MCH_ID"],
        mch_serial=env["WECHAT_PAY_MCH_SERIAL"],
        mch_private_key=Path(env["WECHAT_PAY_MCH_KEY_FILE"]).read_text(),
        api_v3_key=env["WECHAT_PAY_API_V3_KEY"],
        public_keys={
            env["WECHAT_PAY_PUBLIC_KEY_ID"]: Path(env["WECHAT_PAY_PUBLIC_KEY_FILE"]).read_text()
        },
        notify_url=f"{inbox.url}/wechat-pay",
        refund_notify_url=f"{inbox.url}/wechat-refund",
    )


def _is_merchants(env: dict[str, str], signed: bytes, signature_text: str) -> bool:
    key = load_pem_private_key(Path(env["WECHAT_PAY_MCH_KEY_FILE"]).read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    key.public_key().verify(b64decode(signature_text), signed, PKCS1v15(), SHA256())
    return True


def _order(
    simulators: Simulators, order_no: str, clock: Clock, *, amount_fen: int = 10000
) -> NewOrder:
    return NewOrder(
        out_trade_no=order_no,
        amount_fen=amount_fen,
        description="园卡充值 {100 元}",
        payer_open_id=people.wechat_open_id(simulators.env["WECHAT_APP_ID"], "wang"),
        payer_user_id=None,
        expires_at=clock() + timedelta(minutes=15),
    )


def _refund(order_no: str, refund_no: str, amount_fen: int) -> NewRefund:
    return NewRefund(
        out_trade_no=order_no,
        out_refund_no=refund_no,
        amount_fen=amount_fen,
        total_fen=10000,
        reason="退款",
    )


async def _until_settled(ask: Callable[[], Awaitable[RefundFound]]) -> RefundFound:
    # Simulated refunds are 30 s on their way, scaled by 0.02.
    for _ in range(200):
        found = await ask()
        if found.state != "processing":
            return found
        await asyncio.sleep(0.05)
    raise AssertionError("the refund is still on its way")


async def test_an_order_is_created_paid_told_of_refunded_and_found_at_every_step(
    channel: WechatPay, simulators: Simulators, clock: Clock, inbox: Inbox, order_no: str
) -> None:
    by_protocol: Channel = channel
    assert (await by_protocol.query(order_no)).state == "absent"
    order = _order(simulators, order_no, clock)
    pay = await by_protocol.create(order)
    assert set(pay) == {"timeStamp", "nonceStr", "package", "signType", "paySign"}
    again = await by_protocol.create(order)
    assert again["package"] == pay["package"]
    assert again["nonceStr"] != pay["nonceStr"]
    waiting = await by_protocol.query(order_no)
    assert (waiting.state, waiting.amount_fen, waiting.channel_txn_no) == ("paying", 10000, None)

    simulators.tell("pay", out_trade_no=order_no)
    letter = inbox.take()
    assert letter.path == "/wechat-pay"
    notice = by_protocol.notice_of(letter.body, letter.headers)
    found = await by_protocol.query(order_no)
    assert (found.state, found.amount_fen, found.currency) == ("paid", 10000, "CNY")
    assert (found.app_id, found.merchant_id) == (
        simulators.env["WECHAT_APP_ID"],
        simulators.env["WECHAT_PAY_MCH_ID"],
    )
    assert found.funding == "OTHERS"
    # What we are told and what we find is the same payment.
    assert (notice.kind, notice.state, notice.amount_fen) == ("payment", "paid", 10000)
    assert (notice.app_id, notice.merchant_id) == (found.app_id, found.merchant_id)
    assert (notice.channel_txn_no, notice.at) == (found.channel_txn_no, found.paid_at)

    refund_no = f"RF{order_no[2:]}"
    assert (await by_protocol.query_refund(order_no, refund_no)).state == "absent"
    asked = await by_protocol.refund(_refund(order_no, refund_no, 2500))
    assert (asked.state, asked.amount_fen) == ("processing", 2500)
    settled = await _until_settled(lambda: by_protocol.query_refund(order_no, refund_no))
    assert (settled.state, settled.amount_fen) == ("succeeded", 2500)
    assert settled.at is not None
    repeated = await by_protocol.refund(_refund(order_no, refund_no, 2500))
    assert repeated == settled
    letter = inbox.take()
    assert letter.path == "/wechat-refund"
    told = by_protocol.notice_of(letter.body, letter.headers)
    assert (told.kind, told.state, told.amount_fen, told.total_fen) == (
        "refund",
        "succeeded",
        2500,
        10000,
    )
    assert (told.out_refund_no, told.at) == (refund_no, settled.at)
    assert (await by_protocol.query(order_no)).state == "refunded"


async def test_the_phone_gets_what_our_merchant_key_signed(
    channel: WechatPay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    env = simulators.env
    pay = await channel.create(_order(simulators, order_no, clock))
    members = (env["WECHAT_APP_ID"], pay["timeStamp"], pay["nonceStr"], pay["package"])
    signed = "".join(f"{member}\n" for member in members).encode()
    assert _is_merchants(env, signed, pay["paySign"])
    assert pay["signType"] == "RSA"
    assert pay["package"].startswith("prepay_id=wx")
    assert abs(int(pay["timeStamp"]) - clock().timestamp()) < 10


async def test_a_closed_order_cannot_be_paid_and_may_be_closed_again(
    channel: WechatPay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    await channel.close(order_no)
    order = _order(simulators, order_no, clock)
    await channel.create(order)
    await channel.close(order_no)
    await channel.close(order_no)
    assert (await channel.query(order_no)).state == "closed"
    with pytest.raises(ChannelUnknown):
        await channel.create(order)


async def test_a_paid_order_can_be_neither_closed_nor_created_again(
    channel: WechatPay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    order = _order(simulators, order_no, clock)
    await channel.create(order)
    simulators.tell("pay", out_trade_no=order_no)
    with pytest.raises(ChannelRefused) as refused:
        await channel.close(order_no)
    assert refused.value.facts == {"provider_code": "ORDERPAID"}
    # Not a no: whoever took it for one would forget a payment.
    with pytest.raises(ChannelUnknown) as unknown:
        await channel.create(order)
    assert unknown.value.facts == {"cause": "provider-code", "provider_code": "ORDERPAID"}


async def test_definite_noes_are_refusals(
    channel: WechatPay, simulators: Simulators, clock: Clock, order_no: str
) -> None:
    with pytest.raises(ChannelRefused):
        await channel.create(_order(simulators, order_no, clock, amount_fen=0))
    with pytest.raises(ChannelRefused):
        await channel.refund(_refund(order_no, "RF1", 1))
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("pay", out_trade_no=order_no)
    with pytest.raises(ChannelRefused) as refused:
        await channel.refund(_refund(order_no, f"RF{order_no[2:]}", 10001))
    assert refused.value.facts == {"provider_code": "INVALID_REQUEST"}


@pytest.mark.parametrize("outcome", ["abnormal", "closed"])
async def test_a_refund_that_ends_badly_says_so(
    channel: WechatPay,
    *,
    simulators: Simulators,
    clock: Clock,
    inbox: Inbox,
    order_no: str,
    outcome: str,
) -> None:
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("pay", out_trade_no=order_no)
    inbox.take()
    simulators.tell("refunds", out_trade_no=order_no, outcome=outcome)
    refund_no = f"RF{order_no[2:]}"
    await channel.refund(_refund(order_no, refund_no, 10000))
    settled = await _until_settled(lambda: channel.query_refund(order_no, refund_no))
    assert (settled.state, settled.at) == (outcome, None)
    letter = inbox.take()
    assert channel.notice_of(letter.body, letter.headers).state == outcome


@pytest.mark.parametrize(
    ("mode", "problem"),
    [
        ("tamper_body", "bad-signature"),
        ("bad_signature", "bad-signature"),
        ("old_timestamp", "stale"),
        ("unknown_serial", "unknown-serial"),
        ("sign_test", "probe"),
    ],
)
async def test_what_the_simulator_spoils_is_refused(
    channel: WechatPay,
    *,
    simulators: Simulators,
    clock: Clock,
    inbox: Inbox,
    order_no: str,
    mode: str,
    problem: str,
) -> None:
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("notices", out_trade_no=order_no, mode=mode)
    simulators.tell("pay", out_trade_no=order_no)
    letter = inbox.take()
    with pytest.raises(NoticeRefused) as refused:
        channel.notice_of(letter.body, letter.headers)
    assert refused.value.problem == problem


async def test_a_wrong_amount_or_merchant_is_there_for_the_caller_to_see(
    channel: WechatPay, simulators: Simulators, clock: Clock, inbox: Inbox, order_no: str
) -> None:
    await channel.create(_order(simulators, order_no, clock))
    simulators.tell("notices", out_trade_no=order_no, mode="wrong_amount", times=1)
    simulators.tell("pay", out_trade_no=order_no)
    letter = inbox.take()
    assert channel.notice_of(letter.body, letter.headers).amount_fen == 10001
    simulators.tell("notices", out_trade_no=order_no, mode="wrong_merchant", times=1)
    simulators.tell("resend", out_trade_no=order_no)
    letter = inbox.take()
    merchant_id = channel.notice_of(letter.body, letter.headers).merchant_id
    assert merchant_id != simulators.env["WECHAT_PAY_MCH_ID"]


async def test_another_key_of_ours_is_a_refusal_and_says_no_text_of_theirs(
    simulators: Simulators, clock: Clock, our_key: RSAPrivateKey
) -> None:
    channel = _channel(simulators.url, our_key, our_key, clock)
    for ask in (channel.query("RC000001"), channel.query_refund("RC000001", "RF000001")):
        with pytest.raises(ChannelRefused) as refused:
            await ask
        assert refused.value.facts == {"provider_code": "SIGN_ERROR"}
    await channel.disconnect()


# From here on: a WeChat Pay that misbehaves.

FOUND = {
    "appid": "wx0000000000000001",
    "mchid": "1600000001",
    "out_trade_no": "RC000001",
    "trade_state": "NOTPAY",
    "amount": {"total": 10000},
}


def _channel(
    url: str, our_key: RSAPrivateKey, provider_key: RSAPrivateKey, clock: Clock = lambda: NOW
) -> WechatPay:
    settings = WechatPaySettings(
        base_url=url,
        app_id="wx0000000000000001",
        mch_id="1600000001",
        mch_serial="AB01",
        mch_private_key=private_pem(our_key),
        api_v3_key="0123456789abcdef0123456789abcdef",
        public_keys={SERIAL: public_pem(provider_key.public_key())},
        notify_url="https://yuanka.example/n",
        refund_notify_url="https://yuanka.example/r",
    )
    return WechatPay(settings, clock, total_seconds=0.5)


def _signed(key: RSAPrivateKey, body: bytes, *, at: datetime = NOW, status: int = 200) -> bytes:
    timestamp = str(int(at.timestamp()))
    headers = {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": "n",
        "Wechatpay-Serial": SERIAL,
        "Wechatpay-Signature": signature(key, f"{timestamp}\nn\n".encode() + body + b"\n"),
    }
    return said(body, status=status, headers=headers)


async def _every_call(channel: WechatPay) -> list[str]:
    order = NewOrder(
        out_trade_no="RC000001",
        amount_fen=10000,
        description="x",
        payer_open_id="o1",
        payer_user_id=None,
        expires_at=NOW,
    )
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: channel.create(order),
        lambda: channel.query("RC000001"),
        lambda: channel.close("RC000001"),
        lambda: channel.refund(_refund("RC000001", "RF000001", 1)),
        lambda: channel.query_refund("RC000001", "RF000001"),
    ]
    causes = []
    for call in calls:
        with pytest.raises(ChannelUnknown) as unknown:
            await call()
        causes.append(str(unknown.value.facts["cause"]))
    return causes


@pytest.mark.parametrize(
    ("respond", "cause"),
    [
        (keep_silent, "time-out"),
        (hang_up, "unreachable"),
        (always(said(b"", status=503)), "http-503"),
        (always(said(b"<html>", status=404)), "http-404"),
        (always(said(b"", status=302)), "http-302"),
        (always(said(b"{}", status=202)), "http-202"),
        (always(said(b'{"code":"SYSTEM_ERROR"}', status=500)), "provider-code"),
        (always(said(b'{"code":"FREQUENCY_LIMITED"}', status=429)), "provider-code"),
        (always(said(b"{}")), "bad-signature"),
        (always(said(b"", status=204)), "bad-signature"),
    ],
)
async def test_whatever_is_no_proven_answer_is_unknown(
    respond: Respond, cause: str, our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    async with answering(respond) as url:
        channel = _channel(url, our_key, provider_key)
        assert set(await _every_call(channel)) == {cause}
        await channel.disconnect()


async def test_a_stale_or_strangers_answer_is_unknown(
    our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    body = json.dumps(FOUND).encode()
    good = _signed(provider_key, body)
    spoilt = [
        _signed(provider_key, body, at=NOW - timedelta(seconds=301)),
        _signed(provider_key, body, at=NOW + timedelta(hours=24)),
        _signed(our_key, body),
        good.replace(b"10000", b"10001"),
        good.replace(SERIAL.encode(), b"PUB_KEY_ID_02"),
        good.replace(b"Wechatpay-Nonce: n\r\n", b""),
    ]
    for answer in spoilt:
        async with answering(always(answer)) as url:
            channel = _channel(url, our_key, provider_key)
            with pytest.raises(ChannelUnknown) as unknown:
                await channel.query("RC000001")
            await channel.disconnect()
        assert unknown.value.facts == {"cause": "bad-signature"}
    async with answering(
        always(_signed(provider_key, body, at=NOW - timedelta(seconds=299)))
    ) as url:
        channel = _channel(url, our_key, provider_key)
        assert (await channel.query("RC000001")).state == "paying"
        await channel.disconnect()


@pytest.mark.parametrize(
    "changed",
    [
        {"trade_state": "MADE_UP"},
        {"out_trade_no": "RC000002"},
        {"amount": {"total": "10000"}},
        {"success_time": "2026-03-01 12:00:00"},
        {"mchid": None},
    ],
)
async def test_a_signed_answer_that_makes_no_sense_is_unknown(
    changed: dict[str, object], our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    body = json.dumps(FOUND | changed).encode()
    async with answering(always(_signed(provider_key, body))) as url:
        channel = _channel(url, our_key, provider_key)
        with pytest.raises(ChannelUnknown) as unknown:
            await channel.query("RC000001")
        await channel.disconnect()
    assert unknown.value.facts == {"cause": "unreadable"}


@pytest.mark.parametrize("changed", [{"status": "MADE_UP"}, {"out_refund_no": "RF000002"}])
async def test_another_refunds_answer_is_unknown(
    changed: dict[str, object], our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    found = {
        "out_trade_no": "RC000001",
        "out_refund_no": "RF000001",
        "refund_id": "503",
        "status": "SUCCESS",
        "amount": {"total": 10000, "refund": 1},
    }
    body = json.dumps(found | changed).encode()
    async with answering(always(_signed(provider_key, body))) as url:
        channel = _channel(url, our_key, provider_key)
        with pytest.raises(ChannelUnknown):
            await channel.refund(_refund("RC000001", "RF000001", 1))
        with pytest.raises(ChannelUnknown):
            await channel.query_refund("RC000001", "RF000001")
        await channel.disconnect()


@pytest.mark.parametrize(
    ("state", "meaning"),
    [
        ("USERPAYING", "paying"),
        ("PAYERROR", "paying"),
        ("REVOKED", "closed"),
        ("REFUND", "refunded"),
    ],
)
async def test_every_trade_state_has_its_meaning(
    state: str, meaning: str, our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    body = json.dumps(FOUND | {"trade_state": state}).encode()
    async with answering(always(_signed(provider_key, body))) as url:
        channel = _channel(url, our_key, provider_key)
        assert (await channel.query("RC000001")).state == meaning
        await channel.disconnect()


async def test_the_bytes_that_are_sent_are_those_that_are_signed(
    our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        return _signed(provider_key, b"", status=204)

    async with answering(respond) as url:
        channel = _channel(url, our_key, provider_key)
        await channel.close("RC|*_-01")
        await channel.disconnect()
    said_by_us = dict(
        pair.split("=", maxsplit=1)
        for pair in asked[0]
        .headers["authorization"]
        .removeprefix("WECHATPAY2-SHA256-RSA2048 ")
        .split(",")
    )
    unquoted = {name: value.strip('"') for name, value in said_by_us.items()}
    signed = f"POST\n{asked[0].target}\n{unquoted['timestamp']}\n{unquoted['nonce_str']}\n".encode()
    our_key.public_key().verify(
        b64decode(unquoted["signature"]), signed + asked[0].body + b"\n", PKCS1v15(), SHA256()
    )
    assert (unquoted["mchid"], unquoted["serial_no"]) == ("1600000001", "AB01")
    assert asked[0].target == "/v3/pay/transactions/out-trade-no/RC%7C%2A_-01/close"
    assert json.loads(asked[0].body) == {"mchid": "1600000001"}


def test_a_short_api_v3_key_is_found_at_start(
    our_key: RSAPrivateKey, provider_key: RSAPrivateKey
) -> None:
    settings = WechatPaySettings(
        base_url="https://pay.example",
        app_id="a",
        mch_id="m",
        mch_serial="s",
        mch_private_key=private_pem(our_key),
        api_v3_key="short",
        public_keys={SERIAL: public_pem(provider_key.public_key())},
        notify_url="https://yuanka.example/n",
        refund_notify_url="https://yuanka.example/r",
    )
    with pytest.raises(ValueError, match="key"):
        WechatPay(settings, lambda: NOW)
