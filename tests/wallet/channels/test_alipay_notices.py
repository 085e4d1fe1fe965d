"""What we take for a notice of Alipay, and all that we do not."""

from datetime import UTC, datetime
from urllib.parse import quote_plus, urlencode

import pytest
from alipay import AliPay
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.identity.providers.answering import private_pem, public_pem, signature
from wallet.channels.alipay_notices import read_notice
from wallet.channels.channel import Notice, NoticeRefused

PAID = {
    "notify_time": "2026-03-01 12:05:06",
    "notify_type": "trade_status_sync",
    "notify_id": "2026030100222120505000001",
    "charset": "utf-8",
    "version": "1.0",
    "app_id": "2021000000000001",
    "auth_app_id": "2021000000000001",
    "seller_id": "2088000000000001",
    "trade_no": "2026030122001400000000000001",
    "out_trade_no": "RC01J0000000000000000000001",
    "trade_status": "TRADE_SUCCESS",
    "total_amount": "100.00",
    "receipt_amount": "90.00",
    "subject": "园卡充值",
    "gmt_create": "2026-03-01 12:05:00",
    "gmt_payment": "2026-03-01 12:05:05",
    "fund_bill_list": '[{"amount":"100.00","fundChannel":"ALIPAYACCOUNT"}]',
}
REFUND = {"refund_fee": "25.00", "gmt_refund": "2026-03-01 12:06:05.320", "out_biz_no": "RF1"}


def form(
    key: RSAPrivateKey,
    fields: dict[str, str],
    *,
    signs_type: bool = False,
    sign_type: str | None = "RSA2",
    encoding: str = "utf-8",
) -> bytes:
    signed = dict(fields)
    if signs_type and sign_type is not None:
        signed["sign_type"] = sign_type
    text = "&".join(f"{name}={value}" for name, value in sorted(signed.items()))
    sent = fields | {"sign": signature(key, text.encode(encoding))}
    if sign_type is not None:
        sent["sign_type"] = sign_type
    return urlencode(sent, encoding=encoding).encode()


def problem(key: RSAPrivateKey, body: bytes) -> str:
    with pytest.raises(NoticeRefused) as refused:
        read_notice(body, public_key=key.public_key())
    return refused.value.problem


@pytest.mark.parametrize("signs_type", [False, True])
def test_a_genuine_payment_is_read_whether_or_not_its_sign_type_is_signed(
    provider_key: RSAPrivateKey, signs_type: bool
) -> None:
    body = form(provider_key, PAID, signs_type=signs_type)
    assert read_notice(body, public_key=provider_key.public_key()) == Notice(
        channel="alipay",
        notice_id="2026030100222120505000001",
        kind="payment",
        out_trade_no="RC01J0000000000000000000001",
        out_refund_no=None,
        state="paid",
        amount_fen=10000,
        total_fen=10000,
        currency="CNY",
        app_id="2021000000000001",
        merchant_id="2088000000000001",
        channel_txn_no="2026030122001400000000000001",
        at=datetime(2026, 3, 1, 4, 5, 5, tzinfo=UTC),
    )


def test_what_the_unmodified_sdk_signs_we_accept(provider_key: RSAPrivateKey) -> None:
    sdk = AliPay(
        appid="2021000000000001",
        app_private_key_string=private_pem(provider_key),
        alipay_public_key_string=public_pem(provider_key.public_key()),
    )
    body: str = sdk.sign_data(dict(PAID))
    notice = read_notice(body.encode(), public_key=provider_key.public_key())
    assert notice.state == "paid"


@pytest.mark.parametrize(
    ("changed", "kind", "state", "at"),
    [
        ({"trade_status": "TRADE_FINISHED"}, "payment", "paid", "04:05:05"),
        ({"trade_status": "TRADE_CLOSED"}, "payment", "closed", "04:05:06"),
        (
            {"trade_status": "TRADE_CLOSED", "gmt_close": "2026-03-01 12:05:04"},
            "payment",
            "closed",
            "04:05:04",
        ),
        ({"trade_status": "WAIT_BUYER_PAY", "gmt_payment": ""}, "payment", "paying", "04:05:06"),
        ({"refund_fee": "0.00"}, "payment", "paid", "04:05:05"),
        ({"refund_fee": "", "out_biz_no": "", "gmt_refund": ""}, "payment", "paid", "04:05:05"),
        (REFUND, "refund", "succeeded", "04:06:05"),
        (REFUND | {"trade_status": "TRADE_FINISHED"}, "refund", "succeeded", "04:06:05"),
        (
            REFUND | {"trade_status": "TRADE_CLOSED", "refund_fee": "100.00"},
            "refund",
            "succeeded",
            "04:06:05",
        ),
        ({"refund_fee": "0.01"}, "refund", "succeeded", "04:05:06"),
        ({"out_biz_no": "RF1"}, "refund", "succeeded", "04:05:06"),
        ({"gmt_refund": "2026-03-01 12:06:05"}, "refund", "succeeded", "04:06:05"),
    ],
)
def test_only_a_trade_without_any_refund_is_a_payment(
    provider_key: RSAPrivateKey, changed: dict[str, str], *, kind: str, state: str, at: str
) -> None:
    body = form(provider_key, PAID | changed)
    notice = read_notice(body, public_key=provider_key.public_key())
    assert (notice.kind, notice.state, f"{notice.at:%H:%M:%S}") == (kind, state, at)
    assert notice.total_fen == 10000
    assert notice.out_refund_no == (changed.get("out_biz_no") if kind == "refund" else None)


def test_a_refund_tells_all_that_was_given_back_so_far(provider_key: RSAPrivateKey) -> None:
    body = form(provider_key, PAID | REFUND)
    notice = read_notice(body, public_key=provider_key.public_key())
    assert (notice.amount_fen, notice.total_fen, notice.out_refund_no) == (2500, 10000, "RF1")


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", "GBK", "gb2312", "GB18030"])
def test_the_charset_decides_how_the_form_is_read(
    provider_key: RSAPrivateKey, charset: str
) -> None:
    encoding = "utf-8" if charset.lower() == "utf-8" else charset
    # These two characters look like a delimiter's bytes to whoever decodes GBK as something else.
    fields = PAID | {
        "charset": charset,
        "subject": "园卡充值 年票" + ("" if charset == "gb2312" else "誠"),
    }
    body = form(provider_key, fields, encoding=encoding)
    assert read_notice(body, public_key=provider_key.public_key()).state == "paid"


def test_a_charset_that_the_form_is_not_in_makes_it_unreadable(provider_key: RSAPrivateKey) -> None:
    body = form(provider_key, PAID | {"subject": "园卡"}, encoding="gbk")
    assert problem(provider_key, body) == "unreadable"


def test_without_a_charset_it_is_utf_8(provider_key: RSAPrivateKey) -> None:
    fields = {name: value for name, value in PAID.items() if name != "charset"}
    notice = read_notice(form(provider_key, fields), public_key=provider_key.public_key())
    assert notice.state == "paid"


@pytest.mark.parametrize(
    "subject", ["}{", '"', "a=b&c=d", "100%", "+ +", "年票{", "\n", "%E5", "&sign=x", " lead"]
)
def test_texts_may_hold_anything(provider_key: RSAPrivateKey, subject: str) -> None:
    body = form(provider_key, PAID | {"subject": subject})
    assert read_notice(body, public_key=provider_key.public_key()).amount_fen == 10000


def test_blank_values_are_part_of_what_is_signed(provider_key: RSAPrivateKey) -> None:
    body = form(provider_key, PAID | {"passback_params": ""})
    assert read_notice(body, public_key=provider_key.public_key()).state == "paid"
    assert problem(provider_key, body.replace(b"passback_params=&", b"")) == "bad-signature"


def test_an_old_notice_is_as_good_as_a_new_one(provider_key: RSAPrivateKey) -> None:
    # Alipay sends for 25 hours under one signature: its id and the order's state must count.
    body = form(provider_key, PAID | {"notify_time": "2020-01-01 00:00:00"})
    assert read_notice(body, public_key=provider_key.public_key()).state == "paid"


def test_a_forgers_signature_is_bad(provider_key: RSAPrivateKey, our_key: RSAPrivateKey) -> None:
    assert problem(provider_key, form(our_key, PAID)) == "bad-signature"
    assert problem(provider_key, urlencode(PAID).encode()) == "bad-signature"
    for wrong in ("", "AAAA", "?", "é", "\x00"):
        body = urlencode(PAID | {"sign": wrong, "sign_type": "RSA2"}).encode()
        assert problem(provider_key, body) == "bad-signature"


def test_a_weaker_sign_type_is_refused(provider_key: RSAPrivateKey) -> None:
    for sign_type in ("RSA", "MD5", ""):
        body = form(provider_key, PAID, sign_type=sign_type)
        assert problem(provider_key, body) == "bad-signature"
    # Where it is left out, it is RSA2.
    body = form(provider_key, PAID, sign_type=None)
    assert read_notice(body, public_key=provider_key.public_key()).state == "paid"


@pytest.mark.parametrize("name", sorted(set(PAID) - {"charset"}))
def test_no_value_can_be_changed_taken_away_or_renamed(
    provider_key: RSAPrivateKey, name: str
) -> None:
    body = form(provider_key, PAID)
    pair = f"{name}={quote_plus(PAID[name])}".encode()
    assert pair in body
    for other in (pair[:-1] + bytes([pair[-1] ^ 1]), pair + b"0", b"x" + pair, b"x=y"):
        assert problem(provider_key, body.replace(pair, other)) == "bad-signature"


def test_a_value_cannot_be_added(provider_key: RSAPrivateKey) -> None:
    body = form(provider_key, PAID)
    assert problem(provider_key, body + b"&out_biz_no=RF1") == "bad-signature"
    assert problem(provider_key, body + b"&total_amount=999.00") == "unreadable"
    assert problem(provider_key, body + b"&sign=x") == "unreadable"


@pytest.mark.parametrize(
    "changed",
    [
        {"total_amount": "100.001"},
        {"total_amount": "-1.00"},
        {"total_amount": "1e2"},
        {"total_amount": ""},
        {"refund_fee": "25.005"},
        {"trade_status": "TRADE_MADE_UP"},
        {"trade_status": ""},
        {"notify_id": ""},
        {"seller_id": ""},
        {"app_id": ""},
        {"trade_no": ""},
        {"out_trade_no": ""},
        {"notify_time": "yesterday", "gmt_payment": ""},
        {"gmt_payment": "2026-03-01T12:05:05Z"},
        {f"x{number}": "" for number in range(200)},
    ],
)
def test_what_is_signed_but_makes_no_sense_is_unreadable(
    provider_key: RSAPrivateKey, changed: dict[str, str]
) -> None:
    assert problem(provider_key, form(provider_key, PAID | changed)) == "unreadable"


@pytest.mark.parametrize(
    "body",
    [
        "subject=园".encode(),
        b"charset=utf-16&a=b",
        b"charset=&a=b",
        b"charset=utf-8&a=%ff",
        b"charset=gbk&a=%ff%ff",
        b"charset=rot13&a=b",
        b"charset=../x",
    ],
)
def test_what_cannot_be_decoded_is_unreadable(provider_key: RSAPrivateKey, body: bytes) -> None:
    assert problem(provider_key, body) == "unreadable"


def test_a_body_over_64_kib_is_refused(provider_key: RSAPrivateKey) -> None:
    body = form(provider_key, PAID | {"body": "x" * 60_000})
    assert len(body) < 64 * 1024
    assert read_notice(body, public_key=provider_key.public_key()).state == "paid"
    assert problem(provider_key, b"x" * (64 * 1024 + 1)) == "too-large"


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_made_up_is_ever_a_notice_or_a_crash(
    provider_key: RSAPrivateKey, body: bytes
) -> None:
    assert problem(provider_key, body) in {"unreadable", "bad-signature"}
