"""Alipay as a provider of sign-in: who a code of the mini-program is, and which phone is theirs.

The access token that comes with a sign-in is thrown away: nothing here acts for the person later.
"""

from base64 import b64decode
from typing import Any, Literal

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC
from cryptography.hazmat.primitives.padding import PKCS7
from msgspec import Struct

from identity.providers.alipay_gateway import OK, AlipayAnswer, AlipayGateway
from identity.providers.provider import ProviderPerson, ProviderUnavailable, SignInCodeRefused
from identity.providers.rsa import is_signed
from identity.providers.transport import Silence

PAYLOAD_CHARACTERS_MAX = 8 * 1024

_CODE_REFUSAL = "isv.code-"
"""How every sub code begins that speaks of the person's code: isv.code-invalid and its like."""


class AlipaySignInSettings(Struct, frozen=True, kw_only=True):
    """What signing in needs beside the gateway: the app's AES key for content, in base64."""

    aes_key: str


class _SignedIn(Struct, frozen=True):
    """Apps made before the open id get the user id; new ones the open id only."""

    open_id: str = ""
    user_id: str = ""


class _PhonePayload(Struct, frozen=True):
    """What `my.getPhoneNumber` hands the mini-program; `response` is an object where it failed."""

    response: str | dict[str, Any]
    sign: str = ""
    sign_type: str = ""
    encrypt_type: str = ""


class _Phone(Struct, frozen=True):
    code: Literal["10000"]
    mobile: str


class AlipaySignIn:
    """People who come in by the Alipay mini-program."""

    def __init__(self, gateway: AlipayGateway, settings: AlipaySignInSettings) -> None:
        self._gateway = gateway
        self._aes = AES(b64decode(settings.aes_key, validate=True))

    async def person_of(self, code: str) -> ProviderPerson:
        """Return who the one-time code of `my.getAuthCode` stands for.

        Where Alipay gives the user id only, it stands as the open id too: it is then all that
        names the person.

        Raises:
            SignInCodeRefused: Alipay says no.
            ProviderUnavailable: Alipay says nothing that can be used, or refuses our app.
        """
        try:
            answer = await self._gateway.call(
                "alipay.system.oauth.token",
                top_level={"grant_type": "authorization_code", "code": code},
            )
        except Silence as silence:
            raise ProviderUnavailable(cause=silence.cause) from silence
        person = _signed_in(answer)
        return ProviderPerson(
            provider="alipay",
            app_id=self._gateway.app_id,
            open_id=person.open_id or person.user_id,
            user_id=person.user_id or None,
        )

    async def phone_of(self, code: str) -> str:
        """Return the phone number in the payload of `my.getPhoneNumber`, digits only.

        `code` is the payload as the mini-program got it, in JSON: `response`, `sign`,
        `sign_type`, `encrypt_type`. No request goes out. The payload says neither whose it is
        nor when it was made, so it proves a number of somebody who uses our app, no more.

        Raises:
            SignInCodeRefused: it is not Alipay's, or says that there is no number.
        """
        ciphertext = self._proven_ciphertext(code)
        try:
            phone = msgspec.json.decode(self._opened(ciphertext), type=_Phone)
        except (msgspec.MsgspecError, ValueError) as broken:
            raise SignInCodeRefused from broken
        if not (phone.mobile.isascii() and phone.mobile.isdecimal()):
            raise SignInCodeRefused
        return phone.mobile

    def _proven_ciphertext(self, payload_json: str) -> str:
        if len(payload_json) > PAYLOAD_CHARACTERS_MAX:
            raise SignInCodeRefused
        try:
            payload = msgspec.json.decode(payload_json, type=_PhonePayload)
        except (msgspec.MsgspecError, ValueError, RecursionError) as broken:
            raise SignInCodeRefused from broken
        if not isinstance(payload.response, str):
            raise SignInCodeRefused
        if (payload.sign_type, payload.encrypt_type) != ("RSA2", "AES"):
            raise SignInCodeRefused
        # What is signed is the JSON text of the member, its quotes included.
        signed = f'"{payload.response}"'.encode()
        if not is_signed(self._gateway.public_key, signed, payload.sign):
            raise SignInCodeRefused
        return payload.response

    def _opened(self, ciphertext: str) -> bytes:
        # The vector of zero bytes and the padding are Alipay's choice. Padding tells nothing to
        # an attacker, since only ciphertext that Alipay signed gets this far.
        decryptor = Cipher(self._aes, CBC(bytes(16))).decryptor()
        padded = decryptor.update(b64decode(ciphertext, validate=True)) + decryptor.finalize()
        unpadder = PKCS7(AES.block_size).unpadder()
        return unpadder.update(padded) + unpadder.finalize()


def _signed_in(answer: AlipayAnswer) -> _SignedIn:
    if answer.sub_code.startswith(_CODE_REFUSAL):
        raise SignInCodeRefused
    if answer.code != OK:
        raise ProviderUnavailable(cause="provider-code")
    try:
        person = msgspec.convert(answer.members, _SignedIn)
    except msgspec.ValidationError as broken:
        raise ProviderUnavailable(cause="unreadable") from broken
    if not (person.open_id or person.user_id):
        raise ProviderUnavailable(cause="unreadable")
    return person
