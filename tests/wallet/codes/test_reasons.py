import pytest

from wallet.codes.reasons import Reason, Refused


@pytest.mark.parametrize("reason", Reason, ids=lambda reason: reason.name)
def test_every_reason_speaks_both_languages(reason: Reason) -> None:
    for part in (*reason.zh, *reason.en):
        assert part.endswith(("。", ".", "?"))
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in part) for part in reason.zh)
    assert all(part.isascii() for part in reason.en)


def test_the_numbers_are_those_of_the_code_format() -> None:
    ranges = {0: 0, 1: 3, 2: 10, 3: 6, 4: 6, 5: 11, 7: 6, 8: 3, 9: 1}
    expected = {hundred * 100 + unit for hundred, n in ranges.items() for unit in range(1, n + 1)}
    assert set(Reason) == expected | {0, 601, 602, 603, 604, 605, 606, 608}


def test_no_two_reasons_say_the_same() -> None:
    assert len({reason.zh.says for reason in Reason}) == len(Reason)
    assert len({reason.en.says for reason in Reason}) == len(Reason)


def test_forgeries_are_security_events() -> None:
    events = {reason.value for reason in Reason if reason.is_security_event}
    assert events == {203, 204, 205, 206, 210}


def test_a_refusal_names_its_reason() -> None:
    refusal = Refused(Reason.FOREIGN_CODE, provider="wechat")
    assert str(refusal) == "103 FOREIGN_CODE"
    assert refusal.facts == {"provider": "wechat"}
