"""Every no says itself in both languages, with what to do next, under a code of its own."""

import re

import pytest

from api.problems import FAULT, HTTP_SAID
from docs.generate import refusals
from identity.kernel import Refusal, Said
from wallet.codes.reasons import Reason, Sentence

KEBAB = re.compile(r"[a-z]+(-[a-z]+)*")
HAN = re.compile(r"[\u4e00-\u9fff]")
OURS = refusals()


def _is_said(zh: str, en: str) -> bool:
    return bool(HAN.search(zh)) and bool(en.strip()) and not HAN.search(en)


def test_the_list_of_refusals_is_whole() -> None:
    def below(kind: type[Refusal]) -> set[type[Refusal]]:
        return {kind, *(deep for child in kind.__subclasses__() for deep in below(child))}

    declared = {
        kind
        for kind in below(Refusal) - {Refusal}
        if kind.__module__.split(".")[0] in {"api", "identity", "wallet"}
    }
    assert declared == set(OURS)


@pytest.mark.parametrize("refusal", OURS, ids=lambda refusal: refusal.code)
def test_a_refusal_says_what_and_what_next(refusal: type[Refusal]) -> None:
    assert KEBAB.fullmatch(refusal.code)
    assert 400 <= refusal.status < 600
    assert {"code", "status", "title", "next_step"} <= set(vars(refusal)), "all are its own"
    assert isinstance(refusal.title, Said)
    assert isinstance(refusal.next_step, Said)
    assert _is_said(*refusal.title)
    assert _is_said(*refusal.next_step)
    assert refusal.title.en[0].isupper()


def test_codes_are_unique() -> None:
    codes = [refusal.code for refusal in OURS]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("said", [*HTTP_SAID.values(), FAULT], ids=lambda said: said[0])
def test_what_http_itself_refuses_is_said_too(said: tuple[str, Said, Said]) -> None:
    code, title, next_step = said
    assert KEBAB.fullmatch(code)
    assert _is_said(*title)
    assert _is_said(*next_step)


@pytest.mark.parametrize("reason", list(Reason), ids=lambda reason: reason.name)
def test_a_reason_says_what_and_what_next(reason: Reason) -> None:
    assert isinstance(reason.zh, Sentence)
    assert isinstance(reason.en, Sentence)
    assert _is_said(reason.zh.says, reason.en.says)
    assert _is_said(reason.zh.next, reason.en.next)


def test_reason_numbers_are_unique() -> None:
    assert len(Reason.__members__) == len(list(Reason))
