from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from tests.wallet.codes.issuing import (
    CARD,
    DEVICE_KEY,
    ISSUERS,
    NOW_UNIX,
    SLOT,
    START_UNIX,
    Issuer,
    flip,
)
from wallet.codes.denials import Denial, DenyList
from wallet.codes.reasons import Reason, Refused
from wallet.codes.trust import Trust
from wallet.codes.verifier import OFFLINE_SLOTS, ONLINE_SLOTS, Memory, Verified, judge, verify
from wallet.codes.wire import Code, Flag, Kind, encode

END_UNIX = START_UNIX + 1560 * 15


def reason_of(ask: Callable[..., Verified], *args: Any, **circumstances: Any) -> Reason:
    try:
        ask(*args, **circumstances)
    except Refused as refusal:
        return refusal.reason
    return Reason.OK


@dataclass
class Scene:
    """One scan with all its circumstances, sound until something in it is spoiled."""

    fields: dict[str, Any] = field(default_factory=dict)
    slot: int = SLOT
    key: dict[str, Any] = field(default_factory=dict)
    knows_issuer: bool = True
    flipped: list[str] = field(default_factory=list)
    cut: int = 0
    denied_below_gen: int = 0
    last_slot: int | None = None

    def judge(self, issuer: Issuer) -> Reason:
        code = issuer.code(self.slot, **self.fields)
        for part in self.flipped:
            code = structs.replace(code, **{part: flip(getattr(code, part))})
        denials = {CARD: Denial(self.denied_below_gen, None)}
        return reason_of(
            judge,
            encode(code)[: 219 - self.cut],
            issuer.trust(**self.key) if self.knows_issuer else Trust({}),
            now_unix=NOW_UNIX,
            deny_list=DenyList(issuer=None, sequence=0, base=0, issued_unix=0, denials=denials),
            last_slot=self.last_slot,
            device_key=DEVICE_KEY,
        )


def spoil(**changes: Any) -> Callable[[Scene], None]:
    def apply(scene: Scene) -> None:
        for name, value in changes.items():
            old = getattr(scene, name)
            merged = old | value if isinstance(old, dict) else value
            setattr(scene, name, old + value if isinstance(old, list) else merged)

    return apply


# In the order of code format, section 4.0. What one scan cannot suffer together shares a letter.
DEFECTS: list[tuple[str, Reason, Callable[[Scene], None]]] = [
    ("", Reason.MALFORMED, spoil(cut=1)),
    ("", Reason.TEST_CODE, spoil(fields={"flags": Flag.TEST | Flag.PAY})),
    ("", Reason.UNKNOWN_ISSUER, spoil(knows_issuer=False)),
    ("", Reason.UNKNOWN_KEY, spoil(key={"verify_until_unix": NOW_UNIX})),
    ("", Reason.SUITE_MISMATCH, spoil(key={"suite": 9})),
    ("", Reason.KEY_NOT_FOR_TYPE, spoil(key={"kinds": frozenset({0})})),
    ("", Reason.BAD_SIGNATURE, spoil(flipped=["signature"])),
    ("w", Reason.NOT_YET_VALID, spoil(fields={"starts_unix": NOW_UNIX + 31})),
    ("w", Reason.EXPIRED, spoil(fields={"starts_unix": NOW_UNIX - 1562 * 15})),
    ("s", Reason.MALFORMED, spoil(slot=1560)),
    ("s", Reason.STALE_CODE, spoil(slot=SLOT - 3)),
    ("s", Reason.FUTURE_CODE, spoil(slot=SLOT + 3)),
    ("", Reason.BAD_PROOF, spoil(flipped=["proof"])),
    ("", Reason.BAD_TAG, spoil(flipped=["tag"])),
    ("", Reason.REVOKED, spoil(denied_below_gen=2)),
    ("", Reason.REPLAYED, spoil(last_slot=SLOT + 9)),
]


def test_each_defect_alone_has_its_reason(issuer: Issuer) -> None:
    assert Scene().judge(issuer) is Reason.OK
    for _, reason, defect in DEFECTS:
        scene = Scene()
        defect(scene)
        assert scene.judge(issuer) is reason


def test_of_two_defects_the_earlier_is_told(issuer: Issuer) -> None:
    for (letter, reason, earlier), (other, _, later) in combinations(DEFECTS, 2):
        if letter and letter == other:
            continue
        scene = Scene()
        later(scene)
        earlier(scene)
        assert scene.judge(issuer) is reason


@pytest.mark.parametrize("tolerance_slots", [ONLINE_SLOTS, OFFLINE_SLOTS])
def test_the_windows_edges_are_as_far_out_as_a_slot_may_be_off(
    issuer: Issuer, tolerance_slots: int
) -> None:
    margin_seconds = tolerance_slots * 15
    edges = [
        (0, START_UNIX - margin_seconds - 1, Reason.NOT_YET_VALID),
        (0, START_UNIX - margin_seconds, Reason.OK),
        (1559, END_UNIX + margin_seconds - 1, Reason.OK),
        (1559, END_UNIX + margin_seconds, Reason.EXPIRED),
    ]
    for slot, now_unix, expected in edges:
        reason = reason_of(
            verify,
            issuer.code(slot),
            issuer.trust(),
            now_unix=now_unix,
            tolerance_slots=tolerance_slots,
        )
        assert reason is expected


@given(st.integers(-6, 306), st.integers(-200, 4700), st.sampled_from([2, 4]))
def test_time_alone_decides_by_whole_slots(slot: int, second: int, tolerance_slots: int) -> None:
    issuer = ISSUERS[0]
    code = issuer.code(max(slot, 0), span=300)
    slot_now = second // 15
    expected = Reason.OK
    if slot_now < -tolerance_slots:
        expected = Reason.NOT_YET_VALID
    elif slot_now > 299 + tolerance_slots:
        expected = Reason.EXPIRED
    elif code.slot > 299:
        expected = Reason.MALFORMED
    elif code.slot < slot_now - tolerance_slots:
        expected = Reason.STALE_CODE
    elif code.slot > slot_now + tolerance_slots:
        expected = Reason.FUTURE_CODE
    reason = reason_of(
        verify,
        code,
        issuer.trust(),
        now_unix=START_UNIX + second,
        tolerance_slots=tolerance_slots,
    )
    assert reason is expected


def test_a_static_code_is_good_for_whole_days(issuer: Issuer) -> None:
    code, day = issuer.static_code(span=2), 86_400
    trust = issuer.trust(verify_until_unix=2**40)
    moments = (START_UNIX - 1, START_UNIX, START_UNIX + 2 * day - 1, START_UNIX + 2 * day)
    reasons = [reason_of(verify, code, trust, now_unix=moment) for moment in moments]
    assert reasons == [Reason.NOT_YET_VALID, Reason.OK, Reason.OK, Reason.EXPIRED]


def test_a_static_code_has_neither_tag_nor_replay(issuer: Issuer) -> None:
    memory, code = Memory(), issuer.static_code()
    for is_again in (False, True):
        verified = verify(
            code,
            issuer.trust(),
            now_unix=NOW_UNIX,
            device_key=DEVICE_KEY,
            memory=memory,
        )
        assert (verified.hashes, verified.was_remembered) == (0, is_again)
    text = encode(code)
    assert reason_of(judge, text, issuer.trust(), now_unix=NOW_UNIX, last_slot=0) is Reason.OK


def test_a_test_code_passes_only_where_it_is_wanted(issuer: Issuer) -> None:
    code = issuer.code(flags=Flag.TEST | Flag.GATE)
    assert reason_of(verify, code, issuer.trust(), now_unix=NOW_UNIX) is Reason.TEST_CODE
    verified = verify(code, issuer.trust(), now_unix=NOW_UNIX, accepts_test=True)
    assert (verified.slots_off, verified.key.key_id) == (0, 7)


def test_without_its_key_a_tag_is_not_judged(issuer: Issuer) -> None:
    code = structs.replace(issuer.code(), tag=bytes(8))
    assert reason_of(verify, code, issuer.trust(), now_unix=NOW_UNIX) is Reason.OK


def test_the_second_scan_costs_the_slots_between_and_no_signature(
    issuer: Issuer, computed: Counter[str]
) -> None:
    memory, trust = Memory(), issuer.trust()
    first, second = issuer.code(SLOT), issuer.code(SLOT + 20)
    computed.clear()
    verify(first, trust, now_unix=NOW_UNIX, memory=memory)
    assert computed == {"verify": 1, "digest": SLOT + 1}
    computed.clear()
    later = NOW_UNIX + 20 * 15
    verified = verify(second, trust, now_unix=later, memory=memory)
    assert computed == {"digest": 20}
    assert (verified.hashes, verified.was_remembered) == (20, True)
    computed.clear()
    verify(second, trust, now_unix=later, memory=memory, device_key=DEVICE_KEY)
    assert computed == {"mac": 1}


def test_an_earlier_slot_does_not_set_the_memory_back(
    issuer: Issuer, computed: Counter[str]
) -> None:
    memory, trust = Memory(), issuer.trust()
    for slot in (SLOT + 1, SLOT, SLOT + 2):
        code = issuer.code(slot)
        computed.clear()
        verify(code, trust, now_unix=NOW_UNIX, memory=memory)
    assert computed == {"digest": 1}


@pytest.mark.parametrize("part", ["signature", "proof", "tag", "cap_yuan", "groups", "anchor"])
def test_nothing_unproven_is_remembered(issuer: Issuer, part: str) -> None:
    good, memory = issuer.code(), Memory()
    old = getattr(good, part)
    forged = structs.replace(good, **{part: flip(old) if isinstance(old, bytes) else old + 1})

    def scan(code: Code) -> Reason:
        return reason_of(
            verify,
            code,
            issuer.trust(),
            now_unix=NOW_UNIX,
            device_key=DEVICE_KEY,
            memory=memory,
        )

    alone = scan(forged)
    assert alone in {204, 205, 206}
    assert len(memory) == 0
    assert scan(good) is Reason.OK
    assert scan(forged) is alone
    assert len(memory) == 1


def test_memory_does_not_outlive_trust(issuer: Issuer) -> None:
    memory, code = Memory(), issuer.code()
    verify(code, issuer.trust(), now_unix=NOW_UNIX, memory=memory)
    other_key = issuer.suite.public_key(b"\x02" * 32)
    changes_and_reasons: list[tuple[dict[str, Any], Reason]] = [
        ({"is_revoked": True}, Reason.UNKNOWN_KEY),
        ({"verify_until_unix": NOW_UNIX}, Reason.UNKNOWN_KEY),
        ({"kinds": frozenset({0})}, Reason.KEY_NOT_FOR_TYPE),
        ({"public_key": other_key}, Reason.BAD_SIGNATURE),
    ]
    for changes, expected in changes_and_reasons:
        trust = issuer.trust(**changes)
        assert reason_of(verify, code, trust, now_unix=NOW_UNIX, memory=memory) is expected


def test_memory_is_bounded_and_forgets_the_longest_unused(issuer: Issuer) -> None:
    memory, trust = Memory(capacity=2), issuer.trust()
    first, second, third = (issuer.code(card=bytes([n]) * 8) for n in (1, 2, 3))
    for code in (first, second, first, third):
        verify(code, trust, now_unix=NOW_UNIX, memory=memory)
    assert len(memory) == 2
    seen = [
        verify(code, trust, now_unix=NOW_UNIX, memory=memory).was_remembered
        for code in (first, third, second)
    ]
    assert seen == [True, True, False]


def test_no_single_altered_symbol_is_accepted(issuer: Issuer) -> None:
    for text in (encode(issuer.code()), encode(issuer.static_code())):
        for place, symbol in enumerate(text):
            other = "A" if symbol != "A" else "B"
            altered = text[:place] + other + text[place + 1 :]
            reason = reason_of(
                judge, altered, issuer.trust(), now_unix=NOW_UNIX, device_key=DEVICE_KEY
            )
            assert reason in {101, 102, 201, 202, 203, 204, 205, 206, 207, 303, 304}


@settings(max_examples=300)
@given(
    issuer=st.sampled_from(ISSUERS),
    fields=st.fixed_dictionaries(
        {},
        optional={
            "kind": st.sampled_from(Kind),
            "suite": st.sampled_from([1, 2]),
            "flags": st.integers(0, 63).map(Flag),
            "issuer": st.sampled_from([0, 32020001, 2**32 - 1]),
            "key_id": st.sampled_from([0, 7, 255]),
            "gen": st.sampled_from([0, 1, 2, 254, 255]),
            "holder_class": st.integers(0, 9),
            "starts_unix": st.sampled_from([0, START_UNIX, NOW_UNIX, NOW_UNIX + 99, 2**32 - 1]),
            "slot_seconds": st.sampled_from([0, 1, 10, 15, 20, 30, 255]),
            "span": st.sampled_from([0, 1, 365, 400, 401, 959, 961, 1560, 6000, 6001, 65535]),
        },
    ),
    slot=st.sampled_from([0, 1, SLOT - 2, SLOT, SLOT + 2, 1559, 1560, 65535]),
    flipped=st.sets(st.sampled_from(["signature", "proof", "tag", "card", "anchor"]), max_size=1),
    now_unix=st.sampled_from([0, START_UNIX, NOW_UNIX, NOW_UNIX + 60, END_UNIX, 2**33, -1]),
)
def test_signed_nonsense_gets_a_reason_and_no_fault(
    issuer: Issuer,
    fields: dict[str, Any],
    slot: int,
    flipped: set[str],
    now_unix: int,
) -> None:
    code = issuer.code(slot, **fields)
    for part in flipped:
        whole = getattr(code, part)
        code = structs.replace(code, **{part: flip(whole) if whole else whole})
    text, memory = encode(code), Memory()
    circumstances = {"now_unix": now_unix, "device_key": DEVICE_KEY}
    reason = reason_of(judge, text, issuer.trust(), **circumstances)
    assert reason in {0, 101, 102, 201, 202, 203, 204, 205, 206, 207, 301, 302, 303, 304}
    if reason > 102 or reason is Reason.OK:
        repeated = reason_of(verify, code, issuer.trust(), memory=memory, **circumstances)
        assert repeated is reason
        assert len(memory) == (reason is Reason.OK)
