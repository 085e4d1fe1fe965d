"""Notices of Alipay on the wire: proven and read. Pure: no clock, no network.

A notice is a form. What is signed is its decoded values, sorted by name. There is no time in it
that could go stale and no serial: whoever applies a notice counts on its id and on the state of
the order. Source: the provider's page on asynchronous notices.

All kinds come to one address, refunds too: TRADE_SUCCESS with a refund in it is no payment.
"""

from datetime import datetime
from typing import Literal
from urllib.parse import parse_qsl

import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from msgspec import Struct

from identity.providers.alipay_gateway import from_beijing_time
from identity.providers.rsa import is_signed
from wallet.channels.channel import (
    NOTICE_BYTES_MAX,
    Notice,
    NoticeRefused,
    PaymentState,
    RefundState,
    fen_of_yuan,
)

CURRENCY = "CNY"
FIELDS_MAX = 100

_CHARSETS = {"utf-8": "utf-8", "utf8": "utf-8", "gbk": "gbk", "gb2312": "gbk", "gb18030": "gb18030"}
"""What a notice may be written in; gb2312 is a part of gbk, and is sent where gbk is meant."""


class _Trade(Struct, frozen=True, kw_only=True):
    """The members that matter; a blank one counts as left out."""

    notify_id: str
    notify_time: str
    app_id: str
    seller_id: str
    out_trade_no: str
    trade_no: str
    total_amount: str
    trade_status: Literal["WAIT_BUYER_PAY", "TRADE_SUCCESS", "TRADE_FINISHED", "TRADE_CLOSED"]
    trans_currency: str = CURRENCY
    gmt_payment: str | None = None
    gmt_close: str | None = None
    gmt_refund: str | None = None
    refund_fee: str = "0"
    out_biz_no: str | None = None


_PAYMENT_STATES: dict[str, PaymentState] = {
    "WAIT_BUYER_PAY": "paying",
    "TRADE_SUCCESS": "paid",
    "TRADE_FINISHED": "paid",
    "TRADE_CLOSED": "closed",
}


def read_notice(body: bytes, *, public_key: RSAPublicKey) -> Notice:
    """Return what a notification says, once it is proven to be Alipay's.

    Whether amount, currency, app and seller are those of the order is the caller's to compare.

    Raises:
        NoticeRefused: too-large, unreadable or bad-signature.
    """
    if len(body) > NOTICE_BYTES_MAX:
        raise NoticeRefused("too-large")
    try:
        form, charset = _form(body)
        is_proven = _is_proven(form, charset, public_key)
    except (ValueError, KeyError) as broken:
        raise NoticeRefused("unreadable") from broken
    if not is_proven:
        raise NoticeRefused("bad-signature")
    try:
        said = msgspec.convert({name: value for name, value in form.items() if value}, _Trade)
        return _refund_notice(said) if _is_about_refund(said) else _payment_notice(said)
    except (msgspec.ValidationError, ValueError) as broken:
        raise NoticeRefused("unreadable") from broken


def _form(body: bytes) -> tuple[dict[str, str], str]:
    # The charset decides how to decode, and stands itself in the form, in plain letters.
    text = body.decode("ascii")
    charset = dict(_fields(text, "latin-1")).get("charset", "utf-8")
    encoding = _CHARSETS[charset.lower()]
    fields = _fields(text, encoding)
    form = dict(fields)
    if len(form) != len(fields):
        raise ValueError("a name stands twice, and the signature covers one of them only")
    return form, encoding


def _fields(text: str, encoding: str) -> list[tuple[str, str]]:
    return parse_qsl(
        text, keep_blank_values=True, encoding=encoding, errors="strict", max_num_fields=FIELDS_MAX
    )


def _is_proven(form: dict[str, str], encoding: str, public_key: RSAPublicKey) -> bool:
    signature = form.get("sign", "")
    if not signature or form.get("sign_type", "RSA2") != "RSA2":
        return False
    # Notices of trades leave `sign_type` out of what is signed; some other notices keep it in.
    return any(
        is_signed(public_key, _signed_text(form, left_out).encode(encoding), signature)
        for left_out in ({"sign", "sign_type"}, {"sign"})
    )


def _signed_text(form: dict[str, str], left_out: set[str]) -> str:
    return "&".join(f"{name}={form[name]}" for name in sorted(form.keys() - left_out))


def _is_about_refund(said: _Trade) -> bool:
    return bool(fen_of_yuan(said.refund_fee) or said.out_biz_no or said.gmt_refund)


def _payment_notice(said: _Trade) -> Notice:
    amount_fen = fen_of_yuan(said.total_amount)
    at = said.gmt_close if said.trade_status == "TRADE_CLOSED" else said.gmt_payment
    return _notice(
        said,
        kind="payment",
        state=_PAYMENT_STATES[said.trade_status],
        amount_fen=amount_fen,
        at=from_beijing_time(at or said.notify_time),
    )


def _refund_notice(said: _Trade) -> Notice:
    # Alipay tells of refunds that were given, and of no others.
    return _notice(
        said,
        kind="refund",
        state="succeeded",
        amount_fen=fen_of_yuan(said.refund_fee),
        at=from_beijing_time(said.gmt_refund or said.notify_time),
    )


def _notice(
    said: _Trade,
    *,
    kind: Literal["payment", "refund"],
    state: PaymentState | RefundState,
    amount_fen: int,
    at: datetime,
) -> Notice:
    return Notice(
        channel="alipay",
        notice_id=said.notify_id,
        kind=kind,
        out_trade_no=said.out_trade_no,
        out_refund_no=said.out_biz_no if kind == "refund" else None,
        state=state,
        amount_fen=amount_fen,
        total_fen=fen_of_yuan(said.total_amount),
        currency=said.trans_currency,
        app_id=said.app_id,
        merchant_id=said.seller_id,
        channel_txn_no=said.trade_no,
        at=at,
    )
