"""Faults that codes in the field had, listed at the end of the code format's section 7."""

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import structs

from tests.wallet.codes.issuing import DEVICE_KEY, NOW_UNIX, SLOT, START_UNIX, Issuer
from wallet.codes.reasons import Reason, Refused
from wallet.codes.verifier import OFFLINE_SLOTS, judge
from wallet.codes.wire import encode


def reason_of(issuer: Issuer, text: str, *, now_unix: int = NOW_UNIX, slots: int = 2) -> Reason:
    try:
        judge(
            text,
            issuer.trust(),
            now_unix=now_unix,
            tolerance_slots=slots,
            device_key=DEVICE_KEY,
        )
    except Refused as refusal:
        return refusal.reason
    return Reason.OK


def test_a_code_cannot_vouch_for_its_own_key(issuer: Issuer) -> None:
    stranger = Issuer(issuer.suite, private_key=b"\x02" * 32)
    assert reason_of(stranger, encode(stranger.code())) is Reason.OK
    assert reason_of(issuer, encode(stranger.code())) is Reason.BAD_SIGNATURE
    assert reason_of(issuer, encode(stranger.code(key_id=8))) is Reason.UNKNOWN_KEY


@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, b"\x01" + bytes(63)])
def test_the_issuers_signature_is_never_skipped(issuer: Issuer, signature: bytes) -> None:
    # Chain and tag are right: only the issuer never said so.
    unsigned = structs.replace(issuer.code(), signature=signature)
    assert reason_of(issuer, encode(unsigned)) is Reason.BAD_SIGNATURE


def test_a_code_of_the_future_does_not_live_for_ever(issuer: Issuer) -> None:
    text = encode(issuer.code(SLOT + 100))
    assert reason_of(issuer, text) is Reason.FUTURE_CODE
    assert reason_of(issuer, text, slots=OFFLINE_SLOTS) is Reason.FUTURE_CODE
    assert reason_of(issuer, text, now_unix=NOW_UNIX + 1500) is Reason.OK
    assert reason_of(issuer, text, now_unix=NOW_UNIX + 3000) is Reason.STALE_CODE
    tomorrow = encode(issuer.code(0, starts_unix=START_UNIX + 86_400))
    assert reason_of(issuer, tomorrow) is Reason.NOT_YET_VALID


def test_a_byte_moved_to_the_next_field_is_another_message(issuer: Issuer) -> None:
    # Fields of fixed length leave no second way to cut the same bytes: card 00…01 of key 2
    # and card 01… of key 0 never sign alike.
    one = issuer.code(key_id=2, card=b"\0" * 7 + b"\1", gen=1)
    other = issuer.code(key_id=0, card=b"\2" + b"\0" * 7, gen=1)
    assert one.signed_message != other.signed_message
    assert len(one.signed_message) == len(other.signed_message) == 49
    swapped = structs.replace(one, card=other.card, key_id=7)
    assert reason_of(issuer, encode(swapped)) is Reason.BAD_SIGNATURE


def test_text_and_binary_are_not_guessed(issuer: Issuer) -> None:
    code = issuer.code()
    raw = code.tag_message[4:] + code.tag
    assert reason_of(issuer, raw.decode("latin-1")) is Reason.MALFORMED
    assert reason_of(issuer, raw.hex()) is Reason.MALFORMED
    assert reason_of(issuer, "YK1" + raw.hex()) is Reason.MALFORMED


def test_a_der_signature_is_not_taken_for_a_raw_one(issuer: Issuer) -> None:
    code = issuer.code()
    half = len(code.signature) // 2
    r, s = (int.from_bytes(part, "big") for part in (code.signature[:half], code.signature[half:]))
    der = encode_dss_signature(r, s)
    assert reason_of(issuer, encode(structs.replace(code, signature=der))) is Reason.MALFORMED
    for cut in (der[:64], der[-64:]):
        text = encode(structs.replace(code, signature=cut))
        assert reason_of(issuer, text) is Reason.BAD_SIGNATURE
