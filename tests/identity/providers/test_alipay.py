"""People who come in by the Alipay mini-program."""

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC

from identity.providers.alipay import AlipaySignIn, AlipaySignInSettings
from identity.providers.alipay_gateway import AlipayGateway, AlipayGatewaySettings
from identity.providers.provider import ProviderUnavailable, SignInCodeRefused, SignInProvider
from tests.identity.providers.answering import (
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
from tests.simulators.running import Simulators

Clock = Callable[[], datetime]
AES_KEY = bytes(range(16))


def _simulated(simulators: Simulators, clock: Clock) -> AlipayGateway:
    env = simulators.env
    settings = AlipayGatewaySettings(
        gateway_url=env["ALIPAY_GATEWAY_URL"],
        app_id=env["ALIPAY_APP_ID"],
        app_private_key=Path(env["ALIPAY_APP_KEY_FILE"]).read_text(),
        alipay_public_key=Path(env["ALIPAY_PUBLIC_KEY_FILE"]).read_text(),
    )
    return AlipayGateway(settings, clock)


def _gateway(
    our_key: RSAPrivateKey, alipay_key: RSAPrivateKey, clock: Clock, url: str
) -> AlipayGateway:
    settings = AlipayGatewaySettings(
        gateway_url=url,
        app_id="2021000000000001",
        app_private_key=private_pem(our_key),
        alipay_public_key=public_pem(alipay_key.public_key()),
    )
    return AlipayGateway(settings, clock, total_seconds=0.5)


def _sign_in(gateway: AlipayGateway) -> AlipaySignIn:
    return AlipaySignIn(gateway, AlipaySignInSettings(aes_key=b64encode(AES_KEY).decode()))


async def test_the_same_person_is_the_same_every_time(simulators: Simulators, clock: Clock) -> None:
    gateway = _simulated(simulators, clock)
    provider: SignInProvider = _sign_in(gateway)
    first, again = await provider.person_of("sim:wang"), await provider.person_of("sim:wang")
    other, older = await provider.person_of("sim:li"), await provider.person_of("sim:zhao+uid")
    await gateway.disconnect()
    assert first == again != other
    assert (first.provider, first.app_id) == ("alipay", simulators.env["ALIPAY_APP_ID"])
    assert first.user_id is None
    assert older.user_id is not None
    assert older.open_id != older.user_id


async def test_a_made_up_code_is_refused(simulators: Simulators, clock: Clock) -> None:
    gateway = _simulated(simulators, clock)
    with pytest.raises(SignInCodeRefused):
        await _sign_in(gateway).person_of("made-up")
    await gateway.disconnect()


async def test_the_phone_in_a_genuine_payload_is_read(simulators: Simulators, clock: Clock) -> None:
    gateway = _simulated(simulators, clock)
    settings = AlipaySignInSettings(aes_key=simulators.env["ALIPAY_AES_KEY"])
    provider = AlipaySignIn(gateway, settings)
    payload = simulators.tell("alipay/phone", code="sim:wang").text
    phone = await provider.phone_of(payload)
    assert phone.isdecimal()
    assert len(phone) == 11
    # What a misconfigured app gets is an object in the clear.
    with pytest.raises(SignInCodeRefused):
        await provider.phone_of(simulators.tell("alipay/phone", code="nobody").text)
    await gateway.disconnect()


@pytest.mark.parametrize(
    ("content", "name", "refusal"),
    [
        ({"open_id": "o"}, "alipay_system_oauth_token_response", None),
        ({"user_id": "2088"}, "alipay_system_oauth_token_response", None),
        ({}, "alipay_system_oauth_token_response", ProviderUnavailable),
        ({"open_id": 7}, "alipay_system_oauth_token_response", ProviderUnavailable),
        ({"code": "40002", "sub_code": "isv.code-invalid"}, "error_response", SignInCodeRefused),
        (
            {"code": "40002", "sub_code": "isv.invalid-app-id"},
            "error_response",
            ProviderUnavailable,
        ),
        ({"code": "20000", "sub_code": "isp.unknow-error"}, "error_response", ProviderUnavailable),
    ],
)
async def test_answers_to_a_sign_in(
    content: dict[str, object],
    name: str,
    refusal: type[Exception] | None,
    *,
    our_key: RSAPrivateKey,
    alipay_key: RSAPrivateKey,
    clock: Clock,
) -> None:
    text = json.dumps(content)
    body = f'{{"{name}":{text},"sign":"{signature(alipay_key, text.encode())}"}}'.encode()
    async with answering(always(said(body))) as url:
        gateway = _gateway(our_key, alipay_key, clock, url)
        try:
            if refusal is None:
                person = await _sign_in(gateway).person_of("c")
                # Where there is a user id only, it is all that names the person.
                assert person.open_id == content.get("open_id", content.get("user_id"))
                assert person.user_id == content.get("user_id")
            else:
                with pytest.raises(refusal):
                    await _sign_in(gateway).person_of("c")
        finally:
            await gateway.disconnect()


@pytest.mark.parametrize("respond", [keep_silent, hang_up, always(said(b"busy", status=502))])
async def test_no_answer_is_not_a_no(
    respond: Respond, our_key: RSAPrivateKey, alipay_key: RSAPrivateKey, clock: Clock
) -> None:
    async with answering(respond) as url:
        gateway = _gateway(our_key, alipay_key, clock, url)
        with pytest.raises(ProviderUnavailable):
            await _sign_in(gateway).person_of("c")
        await gateway.disconnect()


def _encrypted(text: str, *, key: bytes = AES_KEY, pads: bool = True) -> str:
    plain = text.encode()
    count = 16 - len(plain) % 16
    padded = plain + bytes([count if pads else 99]) * count
    encryptor = Cipher(AES(key), CBC(bytes(16))).encryptor()
    return b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


TOLD = json.dumps({"code": "10000", "msg": "Success", "mobile": "13912345678"})
GOOD = {"sign_type": "RSA2", "encrypt_type": "AES", "charset": "UTF-8"}


async def test_only_what_alipay_signed_and_encrypted_for_us_is_a_phone(
    our_key: RSAPrivateKey, alipay_key: RSAPrivateKey, clock: Clock
) -> None:
    provider = _sign_in(_gateway(our_key, alipay_key, clock, "http://127.0.0.1:1"))

    def payload(response: str, **other: str) -> dict[str, str]:
        sign = signature(alipay_key, f'"{response}"'.encode())
        return {"response": response, "sign": sign, **GOOD, **other}

    good = _encrypted(TOLD)
    assert await provider.phone_of(json.dumps(payload(good))) == "13912345678"
    refused: list[object] = [
        payload(good) | {"sign": signature(alipay_key, good.encode())},
        payload(good) | {"sign": signature(our_key, f'"{good}"'.encode())},
        payload(good) | {"response": _encrypted(TOLD.replace("1391", "1392"))},
        payload(good, sign_type="RSA"),
        payload(good, encrypt_type="none"),
        {name: value for name, value in payload(good).items() if name != "sign"},
        payload(_encrypted(TOLD, key=bytes(16))),
        payload(_encrypted(TOLD, pads=False)),
        payload(good[:-4]),
        payload("not base64!"),
        payload(""),
        payload(_encrypted('{"code":"40003"}')),
        payload(_encrypted(TOLD.replace("13912345678", "+86 139"))),
        payload(_encrypted(TOLD.replace("13912345678", "１３９"))),
        {"response": {"code": "40003"}},
        {},
        [],
        "sim:wang",
        "x" * 9000,
    ]
    for wrong in refused:
        with pytest.raises(SignInCodeRefused):
            await provider.phone_of(json.dumps(wrong))
    with pytest.raises(SignInCodeRefused):
        await provider.phone_of("sim:wang")
