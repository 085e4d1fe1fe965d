"""What all channels share: amounts in yuan, error codes, the three ways to answer."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from identity.kernel import Refusal
from wallet.channels.channel import (
    ChannelRefused,
    ChannelUnknown,
    fen_of_yuan,
    provider_code_of,
    yuan_of_fen,
)

amounts_fen = st.integers(min_value=0, max_value=10**14 - 1)


@given(amounts_fen)
def test_yuan_there_and_back_is_the_same_amount(amount_fen: int) -> None:
    yuan = yuan_of_fen(amount_fen)
    assert fen_of_yuan(yuan) == amount_fen
    assert Decimal(yuan) * 100 == amount_fen
    assert len(yuan.partition(".")[2]) == 2


@given(st.integers(min_value=0, max_value=10**12 - 1))
def test_places_may_be_left_out(yuan: int) -> None:
    assert fen_of_yuan(str(yuan)) == fen_of_yuan(f"{yuan}.0") == fen_of_yuan(f"{yuan}.00")


@given(amounts_fen, st.integers(min_value=0, max_value=9))
def test_a_third_place_is_refused_even_if_it_is_zero(amount_fen: int, digit: int) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        fen_of_yuan(f"{yuan_of_fen(amount_fen)}{digit}")


@given(st.text(max_size=12))
def test_what_is_taken_is_plain_digits(text: str) -> None:
    try:
        amount_fen = fen_of_yuan(text)
    except ValueError:
        return
    assert set(text) <= set("0123456789.")
    assert Decimal(text) * 100 == amount_fen


NO_AMOUNTS = (
    ["", ".", "1.", ".5", "-1", "+1", "1e3", "NaN", "Infinity", "1_000", "1,00", " 1", "1\n"],
    ["１.00", "0x1", "1.2.3", "9" * 13, "年"],
)


@pytest.mark.parametrize("text", [text for texts in NO_AMOUNTS for text in texts])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an amount"):
        fen_of_yuan(text)


def test_known_amounts() -> None:
    yuan = {"0.01": 1, "0.1": 10, "1": 100, "88.88": 8888, "0.29": 29, "1.10": 110}
    assert {text: fen_of_yuan(text) for text in yuan} == yuan


def test_an_amount_of_ours_is_never_negative() -> None:
    with pytest.raises(AssertionError):
        yuan_of_fen(-1)


def test_a_providers_text_is_never_a_fact() -> None:
    assert provider_code_of("ACQ.TRADE_NOT_EXIST") == "ACQ.TRADE_NOT_EXIST"
    for text in ("", "该订单已支付", "A B", "x" * 65, "A\n", "<script>"):
        assert provider_code_of(text) == "unreadable"


def test_unknown_may_be_asked_again_and_a_no_may_not() -> None:
    assert (ChannelUnknown.status, ChannelUnknown.retryable) == (502, True)
    assert (ChannelRefused.status, ChannelRefused.retryable) == (422, False)
    assert Refusal.by_code["channel-unknown"] is ChannelUnknown
    assert Refusal.by_code["channel-declined"] is ChannelRefused
