"""Notices of WeChat Pay v3 on the wire: proven, opened, read. Pure: no clock, no network.

Answers to our own requests are proven in the same way. Source of the wire: the provider's pages
on signatures, payment notices and refund notices.
"""

from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec import Meta, Struct

from identity.providers.rsa import is_signed
from wallet.channels.channel import (
    NOTICE_BYTES_MAX,
    Headers,
    Notice,
    NoticeRefused,
    RefundState,
)

SKEW_SECONDS_MAX = 300
"""How far a signature's time may be off ours, either way. Source: the provider's own SDKs."""

PROBE_PREFIX = "WECHATPAY/SIGNTEST/"
"""The provider tries now and then whether we notice a signature that is none."""

SIGNATURE_TYPE = "WECHATPAY2-SHA256-RSA2048"
CURRENCY = "CNY"

_HEADER = "wechatpay-"
_REQUIRED_HEADERS = ("timestamp", "nonce", "serial", "signature")
_TIMESTAMP_DIGITS_MAX = 12
_NONCE_BYTES = 12

REFUND_STATES: Mapping[str, RefundState] = {
    "PROCESSING": "processing",
    "SUCCESS": "succeeded",
    "ABNORMAL": "abnormal",
    "CLOSED": "closed",
}

Text = Annotated[str, Meta(min_length=1, max_length=128)]
Instant = Annotated[datetime, Meta(tz=True)]
Fen = Annotated[int, Meta(ge=0)]


class Amount(Struct, frozen=True):
    """`total` is what the order costs; `payer_total`, after coupons, is nobody's business here."""

    total: Fen
    currency: str = CURRENCY


class RefundAmount(Struct, frozen=True):
    """What the refunded order cost, and how much of it this refund gives back."""

    total: Fen
    refund: Fen


class _PaidTransaction(Struct, frozen=True):
    appid: Text
    mchid: Text
    out_trade_no: Text
    transaction_id: Text
    success_time: Instant
    amount: Amount
    trade_state: Literal["SUCCESS"]


class _ToldRefund(Struct, frozen=True):
    """A refund in a notice, where the state goes by another name than in answers."""

    mchid: Text
    out_trade_no: Text
    transaction_id: Text
    out_refund_no: Text
    refund_status: Text
    amount: RefundAmount
    success_time: Instant | None = None


class _Resource(Struct, frozen=True):
    algorithm: Literal["AEAD_AES_256_GCM"]
    ciphertext: str
    nonce: str
    associated_data: str | None = None


class _Envelope(Struct, frozen=True):
    id: Text
    create_time: Instant
    event_type: Text
    resource: _Resource


def prove(
    body: bytes, headers: Headers, *, public_keys: Mapping[str, RSAPublicKey], now: datetime
) -> None:
    """Make sure that WeChat Pay signed exactly `body`, just now, with a key we trust.

    Raises:
        NoticeRefused: missing-header, probe, stale, unknown-serial or bad-signature.
    """
    timestamp, nonce, serial, signature = _signature_headers(headers)
    if signature.startswith(PROBE_PREFIX):
        raise NoticeRefused("probe")
    is_number = timestamp.isascii() and timestamp.isdecimal()
    if not is_number or len(timestamp) > _TIMESTAMP_DIGITS_MAX:
        raise NoticeRefused("stale")
    if abs(now.timestamp() - int(timestamp)) > SKEW_SECONDS_MAX:
        raise NoticeRefused("stale")
    # No key is fetched for a stranger: anybody can send us serials.
    if serial not in public_keys:
        raise NoticeRefused("unknown-serial")
    # A header may hold what no text can be; replaced, it is not what was signed.
    signed = f"{timestamp}\n{nonce}\n".encode(errors="replace") + body + b"\n"
    if not is_signed(public_keys[serial], signed, signature):
        raise NoticeRefused("bad-signature")


def read_notice(
    body: bytes,
    headers: Headers,
    *,
    public_keys: Mapping[str, RSAPublicKey],
    api_v3_key: str,
    now: datetime,
) -> Notice:
    """Return what a notification says, once it is proven to be WeChat Pay's and fresh.

    Pure: no clock, no network. `body` is the raw bytes as they came. Whether amount, currency,
    app and merchant are those of the order is the caller's to compare.

    Raises:
        NoticeRefused: with the first problem found.
    """
    if len(body) > NOTICE_BYTES_MAX:
        raise NoticeRefused("too-large")
    prove(body, headers, public_keys=public_keys, now=now)
    key = AESGCM(api_v3_key.encode())
    try:
        envelope = msgspec.json.decode(body, type=_Envelope)
        content = _opened(key, envelope.resource)
        if envelope.event_type == "TRANSACTION.SUCCESS":
            return _payment_notice(envelope, msgspec.json.decode(content, type=_PaidTransaction))
        return _refund_notice(envelope, msgspec.json.decode(content, type=_ToldRefund))
    except (msgspec.MsgspecError, InvalidTag, ValueError, RecursionError) as broken:
        raise NoticeRefused("unreadable") from broken


def _signature_headers(headers: Headers) -> tuple[str, str, str, str]:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: dict[str, str] = {}
    for name, value in pairs:
        # Two values for one name: no telling which one the sender signed for.
        if found.setdefault(name.lower(), value) != value and name.lower().startswith(_HEADER):
            raise NoticeRefused("missing-header")
    required = [found.get(_HEADER + name, "") for name in _REQUIRED_HEADERS]
    if not all(required):
        raise NoticeRefused("missing-header")
    # Where the type is left out, it is RSA, as the provider's own SDKs take it.
    if found.get(f"{_HEADER}signature-type", SIGNATURE_TYPE) != SIGNATURE_TYPE:
        raise NoticeRefused("bad-signature")
    timestamp, nonce, serial, signature = required
    return timestamp, nonce, serial, signature


def _opened(key: AESGCM, resource: _Resource) -> bytes:
    nonce = resource.nonce.encode()
    if len(nonce) != _NONCE_BYTES:
        raise ValueError("not a nonce of AES-GCM")
    ciphertext = b64decode(resource.ciphertext, validate=True)
    return key.decrypt(nonce, ciphertext, (resource.associated_data or "").encode())


def _payment_notice(envelope: _Envelope, said: _PaidTransaction) -> Notice:
    return Notice(
        channel="wechat_pay",
        notice_id=envelope.id,
        kind="payment",
        out_trade_no=said.out_trade_no,
        out_refund_no=None,
        state="paid",
        amount_fen=said.amount.total,
        total_fen=said.amount.total,
        currency=said.amount.currency,
        app_id=said.appid,
        merchant_id=said.mchid,
        channel_txn_no=said.transaction_id,
        at=said.success_time.astimezone(UTC),
    )


def _refund_notice(envelope: _Envelope, said: _ToldRefund) -> Notice:
    if envelope.event_type != f"REFUND.{said.refund_status}":
        raise ValueError("an event of another kind, or at odds with what it carries")
    return Notice(
        channel="wechat_pay",
        notice_id=envelope.id,
        kind="refund",
        out_trade_no=said.out_trade_no,
        out_refund_no=said.out_refund_no,
        state=_told_refund_state(said.refund_status),
        amount_fen=said.amount.refund,
        total_fen=said.amount.total,
        currency=CURRENCY,
        app_id=None,
        merchant_id=said.mchid,
        channel_txn_no=said.transaction_id,
        at=(said.success_time or envelope.create_time).astimezone(UTC),
    )


def _told_refund_state(status: str) -> RefundState:
    # A notice tells how a refund ended, so one that says "processing" is none.
    if status not in REFUND_STATES or status == "PROCESSING":
        raise ValueError("no state that a refund ends in")
    return REFUND_STATES[status]
