"""Alipay's door: what we sign, and which answers we take for Alipay's."""

import json
from datetime import UTC, datetime
from urllib.parse import parse_qsl

import pytest
from alipay import AliPay
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from hypothesis import given
from hypothesis import strategies as st

from identity.providers import alipay_gateway
from identity.providers.alipay_gateway import AlipayGateway, AlipayGatewaySettings, read_answer
from identity.providers.transport import Silence
from tests.identity.providers.answering import (
    Asked,
    always,
    answering,
    hang_up,
    keep_silent,
    private_pem,
    public_pem,
    said,
    signature,
)

NOW = datetime(2026, 3, 1, 18, 5, 6, tzinfo=UTC)
METHOD = "alipay.trade.query"
NAME = "alipay_trade_query_response"


def _answer(key: RSAPrivateKey, content: str, *, name: str = NAME) -> bytes:
    signed = signature(key, content.encode())
    return f'{{"{name}":{content},"sign":"{signed}"}}'.encode()


def _gateway(url: str, our_key: RSAPrivateKey, alipay_key: RSAPrivateKey) -> AlipayGateway:
    settings = AlipayGatewaySettings(
        gateway_url=f"{url}/gateway.do",
        app_id="2021000000000001",
        app_private_key=private_pem(our_key),
        alipay_public_key=public_pem(alipay_key.public_key()),
    )
    return AlipayGateway(settings, lambda: NOW, total_seconds=0.5)


async def test_the_unmodified_sdk_accepts_what_we_sign(
    our_key: RSAPrivateKey, alipay_key: RSAPrivateKey
) -> None:
    asked: list[Asked] = []

    async def respond(request: Asked) -> bytes:
        asked.append(request)
        return said(_answer(alipay_key, '{"code":"10000"}'))

    async with answering(respond) as url:
        gateway = _gateway(url, our_key, alipay_key)
        await gateway.call(
            METHOD,
            {"subject": "年票 & {一}", "n": 1},
            top_level={"notify_url": "https://a.example/n"},
        )
        await gateway.disconnect()
    form = dict(parse_qsl(asked[0].body.decode()))
    as_alipay = AliPay(
        appid=form["app_id"],
        app_private_key_string=private_pem(alipay_key),
        alipay_public_key_string=public_pem(our_key.public_key()),
    )
    # The SDK drops `sign_type` before it verifies, as for notices; of a request it is signed.
    unsigned = {name: value for name, value in form.items() if name != "sign"}
    text = "&".join(f"{name}={unsigned[name]}" for name in sorted(unsigned))
    assert as_alipay._verify(text, form["sign"])
    assert form["timestamp"] == "2026-03-02 02:05:06"
    assert json.loads(form["biz_content"]) == {"subject": "年票 & {一}", "n": 1}
    assert (form["notify_url"], form["charset"]) == ("https://a.example/n", "utf-8")
    assert asked[0].target == "/gateway.do"


@pytest.mark.parametrize(
    "text", ["}", "{", '"', "\\", '","sign":"x"}', '{"alipay_trade_query_response":', "年票{", "\n"]
)
def test_a_genuine_answer_is_read_whatever_its_texts_hold(
    text: str, alipay_key: RSAPrivateKey
) -> None:
    content = json.dumps({"code": "10000", "subject": text}, ensure_ascii=False)
    answer = read_answer(METHOD, _answer(alipay_key, content), alipay_key.public_key())
    assert (answer.code, answer.members["subject"]) == ("10000", text)


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_the_signed_slice_is_found_in_any_answer(alipay_key: RSAPrivateKey, text: str) -> None:
    content = json.dumps({"code": "10000", "subject": text})
    sign = json.dumps(signature(alipay_key, content.encode()))
    before = f'{{ "sign" : {sign} , "{NAME}" : {content} , "cert_sn" : "x" }}'.encode()
    assert read_answer(METHOD, before, alipay_key.public_key()).members["subject"] == text


def test_success_without_a_code_is_success(alipay_key: RSAPrivateKey) -> None:
    body = _answer(alipay_key, '{"open_id":"x"}', name="alipay_system_oauth_token_response")
    answer = read_answer("alipay.system.oauth.token", body, alipay_key.public_key())
    assert answer.code == "10000"


def test_an_error_response_is_never_success(alipay_key: RSAPrivateKey) -> None:
    body = _answer(alipay_key, '{"sub_code":"isv.code-invalid"}', name="error_response")
    assert read_answer(METHOD, body, alipay_key.public_key()).code == ""


@pytest.mark.parametrize("code", sorted(alipay_gateway.REFUSED_AT_THE_DOOR))
def test_a_refusal_at_the_door_may_come_unsigned(code: str, alipay_key: RSAPrivateKey) -> None:
    for name in (NAME, "error_response"):
        body = json.dumps({name: {"code": code, "sub_code": "isv.invalid-app-id"}}).encode()
        assert read_answer(METHOD, body, alipay_key.public_key()).code == code


@pytest.mark.parametrize("code", ["10000", "10003", "20000", "40004", ""])
def test_any_other_answer_must_be_signed(code: str, alipay_key: RSAPrivateKey) -> None:
    for ending in ("", ',"sign":""', ',"sign":"AAAA"', ',"sign":"?"'):
        body = f'{{"{NAME}":{{"code":"{code}"}}{ending}}}'.encode()
        with pytest.raises(Silence) as silence:
            read_answer(METHOD, body, alipay_key.public_key())
        assert silence.value.cause == "bad-signature"


def test_a_wrong_signature_is_worse_than_none(alipay_key: RSAPrivateKey) -> None:
    body = f'{{"{NAME}":{{"code":"40001"}},"sign":"AAAA"}}'.encode()
    with pytest.raises(Silence) as silence:
        read_answer(METHOD, body, alipay_key.public_key())
    assert silence.value.cause == "bad-signature"


def test_no_byte_of_the_signed_slice_can_be_another(alipay_key: RSAPrivateKey) -> None:
    content = '{"code":"10000","total_amount":"100.00"}'
    body = _answer(alipay_key, content)
    start = body.index(content.encode())
    for position in range(start, start + len(content)):
        flipped = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        with pytest.raises(Silence):
            read_answer(METHOD, flipped, alipay_key.public_key())


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>busy</html>",
        b"[]",
        b"{}",
        b'{"sign":"x"}',
        b'{"alipay_trade_query_response":"text","sign":"x"}',
        b'{"alipay_trade_query_response":{},"sign":7}',
        b'{"alipay_trade_query_response":{"a":"\xff"},"sign":"x"}',
        b'{"alipay_trade_query_response":' + b"[" * 100_000,
        b'{"alipay_trade_query_response":{"a":' + b"[" * 3000 + b"]" * 3000 + b'},"sign":""}',
    ],
)
def test_what_cannot_be_read_is_no_answer(body: bytes, alipay_key: RSAPrivateKey) -> None:
    with pytest.raises(Silence) as silence:
        read_answer(METHOD, body, alipay_key.public_key())
    assert silence.value.cause == "unreadable"


async def test_silence_and_other_statuses_are_no_answer(
    our_key: RSAPrivateKey, alipay_key: RSAPrivateKey
) -> None:
    causes = []
    for respond in (keep_silent, hang_up, always(said(b"{}", status=503))):
        async with answering(respond) as url:
            gateway = _gateway(url, our_key, alipay_key)
            with pytest.raises(Silence) as silence:
                await gateway.call(METHOD)
            await gateway.disconnect()
        causes.append(silence.value.cause)
    assert causes == ["time-out", "unreachable", "http-503"]


def test_times_are_beijing_times() -> None:
    text = alipay_gateway.beijing_time(NOW)
    assert text == "2026-03-02 02:05:06"
    assert alipay_gateway.from_beijing_time(text) == NOW
    assert alipay_gateway.from_beijing_time(f"{text}.320") == NOW
    for wrong in ("", "2026-03-02", "yesterday", "2026-13-02 02:05:06"):
        with pytest.raises(ValueError, match="time data"):
            alipay_gateway.from_beijing_time(wrong)
