import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.wallet.codes.issuing import ISSUERS, Issuer
from wallet.codes.reasons import Reason, Refused
from wallet.codes.wire import Code, Flag, Kind, encode, parse, parse_body

VECTORS = json.loads(Path(__file__).parents[2].joinpath("vectors/yk1.json").read_text())
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
TEXT = encode(ISSUERS[0].code())

u8, u16, u32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))


def exactly(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


@st.composite
def codes(draw: st.DrawFn) -> Code:
    is_chain = draw(st.booleans())
    return Code(
        suite=draw(st.sampled_from([1, 2])),
        kind=Kind.CHAIN if is_chain else Kind.STATIC,
        flags=Flag(draw(st.integers(0, 63))),
        issuer=draw(u32),
        key_id=draw(u8),
        card=draw(exactly(8)),
        gen=draw(st.integers(1, 254)),
        holder_class=draw(st.integers(0, 7)),
        groups=draw(u32),
        cap_yuan=draw(u8),
        starts_unix=draw(u32),
        slot_seconds=draw(st.sampled_from([10, 15, 20, 30])) if is_chain else 0,
        span=draw(st.integers(1, 6000 if is_chain else 400)),
        anchor=draw(exactly(16)) if is_chain else b"",
        signature=draw(exactly(64)),
        slot=draw(u16) if is_chain else 0,
        proof=draw(exactly(16)) if is_chain else b"",
        tag=draw(exactly(8)) if is_chain else b"",
    )


def reason_of(text: str) -> Reason:
    try:
        parse(text)
    except Refused as refusal:
        return refusal.reason
    return Reason.OK


def text_of(raw: bytes) -> str:
    return "YK1" + base64.b32encode(raw).decode().rstrip("=")


@given(codes())
def test_a_code_survives_its_text(code: Code) -> None:
    text = encode(code)
    assert parse(text) == code
    assert len(text) == (219 if code.kind is Kind.CHAIN else 152)
    assert set(text[3:]) <= set(ALPHABET)


@given(codes())
def test_a_body_tells_its_credential(code: Code) -> None:
    assert structs.asdict(parse_body(code.body)).items() <= structs.asdict(code).items()
    assert len(code.body) == (45 if code.kind is Kind.CHAIN else 29)


@pytest.mark.parametrize("body", [b"", bytes(28), b"\x11\x83" + bytes(27)])
def test_a_body_too_short_or_of_an_unknown_type_is_none(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"body begins|valid Kind"):
        parse_body(body)


@pytest.mark.parametrize("group", VECTORS, ids=lambda group: group["suite"])
def test_the_bytes_are_those_of_the_vectors(group: dict[str, Any]) -> None:
    code = parse(group["code"])
    assert code.body.hex() == group["header"] + group["anchor"]
    assert code.signed_message.hex() == group["signed"]
    assert code.signature.hex() == group["sig"]
    assert (code.slot, code.proof.hex(), code.tag.hex()) == (
        group["slot"],
        group["proof"],
        group["tag"],
    )
    assert code.tag_message == b"YK1T" + bytes.fromhex(group["raw"])[:127]
    assert text_of(bytes.fromhex(group["raw"])) == encode(code) == group["code"]
    assert encode(parse(group["static"])) == group["static"]


def test_what_scanners_add_is_dropped() -> None:
    assert parse(f" {TEXT[:50]}\r\n {TEXT[50:].lower()}\n") == parse(TEXT)


@given(st.one_of(st.text(), st.text(ALPHABET, max_size=250).map("YK1".__add__)))
def test_no_text_gets_anything_but_a_defined_reason(text: str) -> None:
    assert reason_of(text) in {101, 102, 103}


@given(st.sampled_from([93, 135]).flatmap(exactly), st.sampled_from([0x11, 0x12]), u8)
def test_no_bytes_get_anything_but_a_defined_reason(raw: bytes, vs: int, tf: int) -> None:
    assert reason_of(text_of(bytes([vs, tf]) + raw[2:])) in {0, 101, 102}


@given(st.text(ALPHABET, min_size=4, max_size=30).map(lambda tail: TEXT[3:7] + tail))
def test_only_canonical_base32_is_read(symbols: str) -> None:
    # Of another length than a code, so 101 either way; the decoder itself is asked.
    from wallet.codes.wire import _decode

    padded = symbols + "=" * (-len(symbols) % 8)
    try:
        raw = base64.b32decode(padded)
        is_canonical = base64.b32encode(raw).decode() == padded
    except ValueError:
        is_canonical = False
    if is_canonical:
        assert _decode(symbols.encode()) == raw
    else:
        with pytest.raises(Refused):
            _decode(symbols.encode())


def test_a_spare_bit_set_in_a_static_code_is_malformed() -> None:
    text = encode(ISSUERS[0].static_code())
    sibling = ALPHABET[ALPHABET.index(text[-1]) | 1]
    assert text[-1] != sibling
    assert reason_of(text[:-1] + sibling) is Reason.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "YK1",
        "YK1C",
        "YK",
        TEXT[1:],
        TEXT[:-1],
        TEXT + "A",
        TEXT + "=",
        TEXT.replace("YK1", "YK2"),
        TEXT[:100] + "\t" + TEXT[100:],
        TEXT[:100] + "\u00a0" + TEXT[100:],
        TEXT[:100] + "\u0131" + TEXT[101:],
        TEXT[:100] + "\u017f" + TEXT[101:],
        TEXT[:100] + "_" + TEXT[101:],
        TEXT[:100] + "+" + TEXT[101:],
        TEXT[:100] + "0" + TEXT[101:],
        TEXT[:100] + "\0" + TEXT[101:],
        "YK1" + "A" * 100_000,
        "\udcff" * 219,
    ],
)
def test_odd_texts_are_malformed(text: str) -> None:
    assert reason_of(text) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("vs", "tf"),
    [(0x21, 0x43), (0x01, 0x43), (0x10, 0x43), (0x13, 0x43), (0x11, 0x83), (0x11, 0xC3)],
)
@pytest.mark.parametrize("length", [93, 135, 200])
def test_what_is_not_known_is_unsupported_at_any_length(vs: int, tf: int, length: int) -> None:
    assert reason_of(text_of(bytes([vs, tf]) + bytes(length - 2))) is Reason.UNSUPPORTED_VERSION


@pytest.mark.parametrize(
    "changes",
    [
        {"slot_seconds": 0},
        {"slot_seconds": 14},
        {"slot_seconds": 255},
        {"span": 0},
        {"span": 6001},
        {"gen": 0},
        {"gen": 255},
        {"holder_class": 8},
    ],
)
def test_a_signed_field_out_of_its_range_is_malformed(
    issuer: Issuer, changes: dict[str, int]
) -> None:
    assert reason_of(encode(issuer.code(**changes))) is Reason.MALFORMED


@pytest.mark.parametrize("changes", [{"slot_seconds": 15}, {"span": 0}, {"span": 401}])
def test_a_static_code_has_days_and_no_slots(issuer: Issuer, changes: dict[str, int]) -> None:
    assert reason_of(encode(issuer.static_code(**changes))) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("digits", "provider"),
    [
        ("134567890123456789", "wechat"),
        ("100000000000000000", "wechat"),
        ("15 9999 9999 9999 9999\r\n", "wechat"),
        ("2512345678901234", "alipay"),
        ("287654321098765432", "alipay"),
        ("300000000000000000000000", "alipay"),
    ],
)
def test_pay_codes_of_other_wallets_are_named(digits: str, provider: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(digits)
    assert refused.value.reason is Reason.FOREIGN_CODE
    assert refused.value.facts == {"provider": provider}


@pytest.mark.parametrize(
    "digits",
    [
        "1",
        "16" + "0" * 16,
        "13" + "0" * 15,
        "25" + "0" * 13,
        "28" + "0" * 23,
        "31" + "0" * 16,
        "٣" * 18,
    ],
)
def test_other_numbers_are_only_malformed(digits: str) -> None:
    assert reason_of(digits) is Reason.MALFORMED
