"""What we take for a notice of WeChat Pay, and all that we do not."""

import json
import socket
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wechatpayv3.utils import aes_decrypt, rsa_verify

from tests.identity.providers.answering import signature
from wallet.channels.channel import Notice, NoticeRefused
from wallet.channels.wechat_pay_notices import read_notice

NOW = datetime(2026, 3, 1, 4, 5, 6, tzinfo=UTC)
SERIAL = "PUB_KEY_ID_0116000000002026030100000000000001"
API_V3_KEY = "0123456789abcdef0123456789abcdef"
PAID = {
    "appid": "wx0000000000000001",
    "mchid": "1600000001",
    "out_trade_no": "RC01J0000000000000000000001",
    "transaction_id": "4200000000202603010000000001",
    "trade_type": "JSAPI",
    "trade_state": "SUCCESS",
    "bank_type": "OTHERS",
    "success_time": "2026-03-01T12:05:05+08:00",
    "payer": {"openid": "o1"},
    "amount": {"total": 10000, "payer_total": 9000, "currency": "CNY", "payer_currency": "CNY"},
}
REFUNDED = {
    "mchid": "1600000001",
    "out_trade_no": "RC01J0000000000000000000001",
    "transaction_id": "4200000000202603010000000001",
    "out_refund_no": "RF01J0000000000000000000001",
    "refund_id": "5030000000202603010000000001",
    "refund_status": "SUCCESS",
    "success_time": "2026-03-01T12:05:05+08:00",
    "user_received_account": "支付用户零钱",
    "amount": {"total": 10000, "refund": 2500, "payer_total": 9000, "payer_refund": 2250},
}


def envelope(
    content: object,
    event: str = "TRANSACTION.SUCCESS",
    *,
    resource: Mapping[str, Any] | None = None,
) -> bytes:
    nonce, associated = "fdasflkja484", "transaction"
    plain = content if isinstance(content, bytes) else json.dumps(content).encode()
    sealed = AESGCM(API_V3_KEY.encode()).encrypt(nonce.encode(), plain, associated.encode())
    told = {
        "id": "0b5f1d2e-6c1c-5c1a-9d6a-000000000001",
        "create_time": "2026-03-01T12:05:06+08:00",
        "resource_type": "encrypt-resource",
        "event_type": event,
        "summary": "支付成功",
        "resource": {
            "original_type": "transaction",
            "algorithm": "AEAD_AES_256_GCM",
            "ciphertext": b64encode(sealed).decode(),
            "associated_data": associated,
            "nonce": nonce,
            **(resource or {}),
        },
    }
    return json.dumps(told, ensure_ascii=False).encode()


def headers_of(
    key: RSAPrivateKey, body: bytes, *, at: datetime = NOW, serial: str = SERIAL
) -> dict[str, str]:
    timestamp, nonce = str(int(at.timestamp())), "5K8264ILTKCH16CQ2502SI8ZNMTM67VS"
    return {
        "Wechatpay-Timestamp": timestamp,
        "Wechatpay-Nonce": nonce,
        "Wechatpay-Serial": serial,
        "Wechatpay-Signature": signature(key, f"{timestamp}\n{nonce}\n".encode() + body + b"\n"),
        "Wechatpay-Signature-Type": "WECHATPAY2-SHA256-RSA2048",
    }


class Reader:
    """The verifier with the keys of this test."""

    def __init__(self, key: RSAPrivateKey) -> None:
        self.key = key
        self.public_keys: dict[str, RSAPublicKey] = {SERIAL: key.public_key()}

    def read(
        self,
        body: bytes,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        *,
        now: datetime = NOW,
    ) -> Notice:
        return read_notice(
            body,
            headers_of(self.key, body) if headers is None else headers,
            public_keys=self.public_keys,
            api_v3_key=API_V3_KEY,
            now=now,
        )

    def problem(
        self,
        body: bytes,
        headers: Mapping[str, str] | Iterable[tuple[str, str]] | None = None,
        *,
        now: datetime = NOW,
    ) -> str:
        with pytest.raises(NoticeRefused) as refused:
            self.read(body, headers, now=now)
        return refused.value.problem


@pytest.fixture(scope="session")
def reader(provider_key: RSAPrivateKey) -> Reader:
    return Reader(provider_key)


def test_a_genuine_payment_is_read_with_the_orders_total_and_not_what_coupons_left(
    reader: Reader,
) -> None:
    assert reader.read(envelope(PAID)) == Notice(
        channel="wechat_pay",
        notice_id="0b5f1d2e-6c1c-5c1a-9d6a-000000000001",
        kind="payment",
        out_trade_no="RC01J0000000000000000000001",
        out_refund_no=None,
        state="paid",
        amount_fen=10000,
        total_fen=10000,
        currency="CNY",
        app_id="wx0000000000000001",
        merchant_id="1600000001",
        channel_txn_no="4200000000202603010000000001",
        at=datetime(2026, 3, 1, 4, 5, 5, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("status", "state"), [("SUCCESS", "succeeded"), ("ABNORMAL", "abnormal"), ("CLOSED", "closed")]
)
def test_a_genuine_refund_is_read(reader: Reader, status: str, state: str) -> None:
    content = REFUNDED | {"refund_status": status}
    if status != "SUCCESS":
        del content["success_time"]
    notice = reader.read(envelope(content, f"REFUND.{status}"))
    assert (notice.kind, notice.state, notice.out_refund_no) == (
        "refund",
        state,
        "RF01J0000000000000000000001",
    )
    assert (notice.amount_fen, notice.total_fen, notice.app_id) == (2500, 10000, None)
    # A refund that gave nothing has no time of its own; the notice's stands in.
    assert notice.at == datetime(2026, 3, 1, 4, 5, 5 if status == "SUCCESS" else 6, tzinfo=UTC)


def test_what_we_accept_the_sdks_primitives_accept_too(reader: Reader) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body)
    assert rsa_verify(
        headers["Wechatpay-Timestamp"],
        headers["Wechatpay-Nonce"],
        body.decode(),
        headers["Wechatpay-Signature"],
        reader.key.public_key(),
    )
    resource = json.loads(body)["resource"]
    opened = aes_decrypt(
        resource["nonce"], resource["ciphertext"], resource["associated_data"], API_V3_KEY
    )
    assert json.loads(opened)["out_trade_no"] == reader.read(body).out_trade_no


@pytest.mark.parametrize("seconds", [299, 300, -299, -300])
def test_a_notice_is_fresh_for_five_minutes_either_way(reader: Reader, seconds: int) -> None:
    assert reader.read(envelope(PAID), now=NOW + timedelta(seconds=seconds)).state == "paid"


@pytest.mark.parametrize("seconds", [301, -301, 300.001, 24 * 3600, -24 * 3600])
def test_an_older_or_later_notice_is_stale(reader: Reader, seconds: float) -> None:
    assert reader.problem(envelope(PAID), now=NOW + timedelta(seconds=seconds)) == "stale"


@pytest.mark.parametrize("timestamp", ["", "now", "-1", "1.5", "９", "1" * 13, "0x10", " 1", "1e9"])
def test_a_time_that_is_no_number_is_not_fresh(reader: Reader, timestamp: str) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body) | {"Wechatpay-Timestamp": timestamp}
    assert reader.problem(body, headers) == ("stale" if timestamp else "missing-header")


@pytest.mark.parametrize("name", ["Timestamp", "Nonce", "Serial", "Signature"])
def test_every_signature_header_must_be_there(reader: Reader, name: str) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body)
    del headers[f"Wechatpay-{name}"]
    assert reader.problem(body, headers) == "missing-header"
    assert reader.problem(body, headers | {f"Wechatpay-{name}": ""}) == "missing-header"


def test_a_header_of_two_values_is_as_good_as_none(reader: Reader) -> None:
    body = envelope(PAID)
    pairs = list(headers_of(reader.key, body).items())
    assert reader.read(body, pairs + pairs).state == "paid"
    assert reader.problem(body, [*pairs, ("wechatpay-serial", "x")]) == "missing-header"
    assert reader.read(body, [*pairs, ("Accept", "a"), ("accept", "b")]).state == "paid"


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_headers_may_come_in_any_order_and_any_case(reader: Reader, data: st.DataObject) -> None:
    body = envelope(PAID)
    pairs = data.draw(st.permutations(list(headers_of(reader.key, body).items())))
    cases = data.draw(
        st.lists(st.sampled_from([str.lower, str.upper, str.title]), min_size=5, max_size=5)
    )
    cased = [(case(name), value) for case, (name, value) in zip(cases, pairs, strict=True)]
    assert reader.read(body, cased).state == reader.read(body, dict(cased)).state == "paid"


def test_the_signature_type_may_be_left_out_and_may_not_be_another(reader: Reader) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body)
    other = headers | {"Wechatpay-Signature-Type": "WECHATPAY2-SM2-WITH-SM3"}
    assert reader.problem(body, other) == "bad-signature"
    del headers["Wechatpay-Signature-Type"]
    assert reader.read(body, headers).state == "paid"


@pytest.mark.parametrize("serial", ["PUB_KEY_ID_01", "7777ABCD", "../../etc", "0", SERIAL.lower()])
def test_an_unknown_serial_is_refused_without_asking_anybody(
    reader: Reader, serial: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    body = envelope(PAID)
    assert reader.problem(body, headers_of(reader.key, body, serial=serial)) == "unknown-serial"


def test_old_and_new_key_hold_at_once(reader: Reader, our_key: RSAPrivateKey) -> None:
    body = envelope(PAID)
    both = {SERIAL: our_key.public_key(), "5157F09EFDC096DE": reader.key.public_key()}
    for key, serial in ((our_key, SERIAL), (reader.key, "5157F09EFDC096DE")):
        headers = headers_of(key, body, serial=serial)
        notice = read_notice(body, headers, public_keys=both, api_v3_key=API_V3_KEY, now=NOW)
        assert notice.state == "paid"
    # The other one's signature under a known serial is still wrong.
    headers = headers_of(our_key, body, serial="5157F09EFDC096DE")
    with pytest.raises(NoticeRefused, match="bad-signature"):
        read_notice(body, headers, public_keys=both, api_v3_key=API_V3_KEY, now=NOW)


def test_a_probe_is_told_apart(reader: Reader) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body)
    headers["Wechatpay-Signature"] = f"WECHATPAY/SIGNTEST/{headers['Wechatpay-Signature']}"
    assert reader.problem(body, headers) == "probe"


def test_a_forgers_signature_is_bad(reader: Reader, our_key: RSAPrivateKey) -> None:
    body = envelope(PAID)
    assert reader.problem(body, headers_of(our_key, body)) == "bad-signature"
    for wrong in ("AAAA", "?", "é", "A" * 5000, "\udc80"):
        headers = headers_of(reader.key, body) | {"Wechatpay-Signature": wrong}
        assert reader.problem(body, headers) == "bad-signature"


def test_any_flipped_byte_makes_the_signature_bad(reader: Reader) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body)
    for position in range(0, len(body), 7):
        flipped = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        assert reader.problem(flipped, headers) == "bad-signature"
    for name in ("Wechatpay-Nonce", "Wechatpay-Timestamp"):
        value = headers[name]
        other = headers | {name: value[:-1] + chr(ord(value[-1]) ^ 1)}
        assert reader.problem(body, other) == "bad-signature"
    raw = bytearray(b64decode(headers["Wechatpay-Signature"]))
    raw[100] ^= 1
    other = headers | {"Wechatpay-Signature": b64encode(raw).decode()}
    assert reader.problem(body, other) == "bad-signature"


def test_the_same_json_in_another_spelling_is_not_what_was_signed(reader: Reader) -> None:
    body = envelope(PAID)
    headers = headers_of(reader.key, body)
    for other in (body + b"\n", b" " + body, json.dumps(json.loads(body)).encode(), body[:-1]):
        assert reader.problem(other, headers) == "bad-signature"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"null",
        b"\xff\xfe",
        b"[" * 5000,
        envelope(PAID, "TRANSACTION.CLOSED"),
        envelope(PAID, "REFUND.SUCCESS"),
        envelope(REFUNDED, "TRANSACTION.SUCCESS"),
        envelope(REFUNDED, "REFUND.CLOSED"),
        envelope(REFUNDED | {"refund_status": "PROCESSING"}, "REFUND.PROCESSING"),
        envelope(REFUNDED | {"refund_status": "MADE_UP"}, "REFUND.MADE_UP"),
        envelope(PAID | {"trade_state": "NOTPAY"}),
        envelope(PAID | {"amount": {"total": -1}}),
        envelope(PAID | {"amount": {"total": "10000"}}),
        envelope(PAID | {"amount": {"total": 99.5}}),
        envelope(PAID | {"amount": {"payer_total": 10000}}),
        envelope(PAID | {"success_time": "2026-03-01 12:05:05"}),
        envelope(PAID | {"success_time": "2026-03-01T12:05:05"}),
        envelope(PAID | {"out_trade_no": ""}),
        envelope(PAID | {"out_trade_no": None}),
        envelope(PAID | {"transaction_id": "x" * 129}),
        envelope(b"not json"),
        envelope(b"[" * 5000),
        envelope(b"\xff"),
        envelope(PAID, resource={"algorithm": "AEAD_AES_128_GCM"}),
        envelope(PAID, resource={"nonce": "fdasflkja485"}),
        envelope(PAID, resource={"nonce": ""}),
        envelope(PAID, resource={"nonce": "short"}),
        envelope(PAID, resource={"nonce": "x" * 200}),
        envelope(PAID, resource={"nonce": "年年年年"}),
        envelope(PAID, resource={"associated_data": "refund"}),
        envelope(PAID, resource={"associated_data": None}),
        envelope(PAID, resource={"ciphertext": ""}),
        envelope(PAID, resource={"ciphertext": "AAAA"}),
        envelope(PAID, resource={"ciphertext": "?"}),
        envelope(PAID, resource={"ciphertext": 7}),
    ],
)
def test_what_is_signed_but_makes_no_sense_is_unreadable(reader: Reader, body: bytes) -> None:
    assert reader.problem(body) == "unreadable"


def test_associated_data_may_be_empty_or_absent(reader: Reader) -> None:
    nonce = b"fdasflkja484"
    sealed = AESGCM(API_V3_KEY.encode()).encrypt(nonce, json.dumps(PAID).encode(), None)
    for associated in ("", None):
        resource = {"ciphertext": b64encode(sealed).decode(), "associated_data": associated}
        assert reader.read(envelope(PAID, resource=resource)).state == "paid"


def test_a_notice_for_another_merchants_key_is_unreadable(reader: Reader) -> None:
    body = envelope(PAID)
    with pytest.raises(NoticeRefused, match="unreadable"):
        read_notice(
            body,
            headers_of(reader.key, body),
            public_keys=reader.public_keys,
            api_v3_key=API_V3_KEY[::-1],
            now=NOW,
        )


def test_a_body_over_64_kib_is_refused_before_anything_is_done_with_it(reader: Reader) -> None:
    fits = envelope(PAID | {"attach": "x" * 40_000})
    assert len(fits) < 64 * 1024
    assert reader.read(fits).state == "paid"
    assert reader.problem(b"x" * (64 * 1024 + 1), {}) == "too-large"
    assert reader.problem(b"x" * (64 * 1024), {}) == "missing-header"


@given(st.binary(max_size=300), st.dictionaries(st.text(max_size=30), st.text(max_size=30)))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_nothing_made_up_is_ever_a_notice_or_a_crash(
    reader: Reader, body: bytes, headers: dict[str, str]
) -> None:
    made_up = headers_of(reader.key, body) | headers
    assert reader.problem(body, made_up) in {"unreadable", "bad-signature", "missing-header"}
