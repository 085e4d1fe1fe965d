"""The key ring, sealed fields and blind indexes."""

import copy
import dataclasses
import json
import os
import pickle
import traceback
from base64 import b64decode, b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from identity import sealing
from identity.sealing import (
    CannotOpen,
    KeyRing,
    KeyRingRefused,
    OpenProblem,
    RingProblem,
    Secret,
)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
ROW = UUID("019cd000-0000-7000-8000-000000000001")
OTHER_ROW = UUID("019cd000-0000-7000-8000-000000000002")
RAW = sealing.make_development_ring(now=NOW)
RING = sealing.parse_ring(RAW, is_production=False)
ID_TEXT = "110101199003074514"
ID_NUMBER = ID_TEXT.encode()


def key_text(seed: int) -> str:
    return b64encode(bytes((seed + at * 7) % 256 for at in range(32))).decode()


def changed(change: Callable[[Any], None]) -> bytes:
    ring = json.loads(RAW)
    ring["purpose"] = "production"
    change(ring)
    return json.dumps(ring).encode()


def rotated() -> KeyRing:
    def rotate(ring: Any) -> None:
        ring["key_encryption_keys"].append({"id": 2, "secret": key_text(9)})
        ring["active_key_encryption_key"] = 2

    return sealing.parse_ring(changed(rotate), is_production=True)


def seal(value: bytes = ID_NUMBER, ring: KeyRing = RING) -> bytes:
    return sealing.seal(ring, value, table="identity_citizen", column="id_number", row_id=ROW)


def unseal(sealed: bytes, ring: KeyRing = RING) -> bytes:
    return sealing.open_sealed(
        ring, sealed, table="identity_citizen", column="id_number", row_id=ROW
    )


def rewrap(sealed: bytes, ring: KeyRing) -> bytes:
    return sealing.rewrap(ring, sealed, table="identity_citizen", column="id_number", row_id=ROW)


def open_problem(sealed: bytes, ring: KeyRing = RING) -> OpenProblem:
    with pytest.raises(CannotOpen) as cannot:
        unseal(sealed, ring)
    return cannot.value.problem


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2_000))
def test_what_is_sealed_opens(value: bytes) -> None:
    sealed = seal(value)
    assert unseal(sealed) == value
    assert len(sealed) == len(value) + sealing.SEALED_OVERHEAD_BYTES
    assert not value or len(value) < 8 or value not in sealed


def test_one_value_sealed_twice_differs_in_every_part() -> None:
    first, second = seal(), seal()
    assert first[:4] == second[:4] == bytes([1, 1, 0, 1])
    for start, end in ((4, 16), (16, 64), (64, 76), (76, len(first))):
        assert first[start:end] != second[start:end]


@pytest.mark.parametrize(
    ("table", "column", "row_id"),
    [
        ("identity_citizen", "id_number", OTHER_ROW),
        ("identity_citizen", "phone", ROW),
        ("identity_staff", "id_number", ROW),
        ("identity_citizenid", "_number", ROW),
        ("", "", ROW),
    ],
)
def test_a_moved_value_does_not_open(table: str, column: str, row_id: UUID) -> None:
    sealed = seal()
    with pytest.raises(CannotOpen) as cannot:
        sealing.open_sealed(RING, sealed, table=table, column=column, row_id=row_id)
    assert cannot.value.problem is OpenProblem.FORGED
    with pytest.raises(CannotOpen):
        sealing.rewrap(rotated(), sealed, table=table, column=column, row_id=row_id)


def test_a_data_key_cannot_be_lent_to_another_value() -> None:
    mine, other = seal(b"mine"), seal(b"other")
    assert open_problem(mine[:64] + other[64:]) is OpenProblem.FORGED


def test_no_flipped_bit_opens() -> None:
    sealed = seal()
    for at in range(len(sealed)):
        for bit in range(8):
            forged = sealed[:at] + bytes([sealed[at] ^ (1 << bit)]) + sealed[at + 1 :]
            with pytest.raises(CannotOpen):
                unseal(forged)


def test_cut_or_extended_values_do_not_open() -> None:
    sealed = seal()
    for length in range(len(sealed)):
        with pytest.raises(CannotOpen):
            unseal(sealed[:length])
    assert open_problem(sealed + b"\x00") is OpenProblem.FORGED
    assert open_problem(b"") is OpenProblem.MALFORMED
    assert open_problem(b"\x02" + sealed[1:]) is OpenProblem.MALFORMED
    assert open_problem(sealed[:1] + b"\x02" + sealed[2:]) is OpenProblem.MALFORMED


def test_rotation_keeps_old_values_readable_and_moves_them_without_opening_them() -> None:
    old, ring = seal(), rotated()
    assert unseal(old, ring) == ID_NUMBER
    assert sealing.key_id_of(old) == 1
    new = rewrap(old, ring)
    assert sealing.key_id_of(new) == 2
    assert new[64:] == old[64:]
    assert new[4:64] != old[4:64]
    assert unseal(new, ring) == ID_NUMBER
    assert rewrap(new, ring) == new
    assert sealing.key_id_of(seal(ring=ring)) == 2
    assert open_problem(new, RING) is OpenProblem.UNKNOWN_KEY


def test_a_key_id_cannot_be_rewritten() -> None:
    def same_secret_elsewhere(ring: Any) -> None:
        ring["key_encryption_keys"][0]["id"] = 2
        ring["active_key_encryption_key"] = 2

    ring = sealing.parse_ring(changed(same_secret_elsewhere), is_production=True)
    sealed = seal()
    assert open_problem(sealed, ring) is OpenProblem.UNKNOWN_KEY
    assert open_problem(sealed[:2] + b"\x00\x02" + sealed[4:], ring) is OpenProblem.FORGED


def test_what_does_not_unwrap_is_not_rewrapped() -> None:
    sealed = bytearray(seal())
    sealed[20] ^= 1
    with pytest.raises(CannotOpen) as cannot:
        rewrap(bytes(sealed), rotated())
    assert cannot.value.problem is OpenProblem.FORGED


def test_a_blind_index_is_equal_for_equal_values_of_one_column_only() -> None:
    index = sealing.blind_index(RING, "identity_citizen.id_number", ID_TEXT)
    assert len(index) == 16
    assert index == sealing.blind_index(rotated(), "identity_citizen.id_number", ID_TEXT)
    assert index != sealing.blind_index(RING, "identity_citizen.id_number", ID_TEXT + "0")
    assert index != sealing.blind_index(RING, "identity_citizen.phone", ID_TEXT)
    other = sealing.parse_ring(sealing.make_development_ring(now=NOW), is_production=False)
    assert index != sealing.blind_index(other, "identity_citizen.id_number", ID_TEXT)


def test_column_and_value_do_not_run_into_each_other() -> None:
    assert sealing.blind_index(RING, "a", "bc") != sealing.blind_index(RING, "ab", "c")
    with pytest.raises(AssertionError):
        sealing.blind_index(RING, "a\x1fb", "c")


def test_the_blind_index_is_the_hmac_the_design_names() -> None:
    def fixed(ring: Any) -> None:
        ring["index_key"] = key_text(1)

    ring = sealing.parse_ring(changed(fixed), is_production=True)
    # From openssl's command line, HMAC-SHA256 over "t.c" 1F "value".
    assert sealing.blind_index(ring, "t.c", "value").hex() == "f42a9e6580ecdb9db185468827e8aec4"


def first_key(ring: Any, **values: Any) -> None:
    ring["key_encryption_keys"][0].update(values)


def short(member: str, length: int) -> Callable[[Any], None]:
    def shorten(ring: Any) -> None:
        ring[member] = b64encode(b64decode(ring[member])[:length]).decode()

    return shorten


def put(**members: Any) -> Callable[[Any], None]:
    return lambda ring: ring.update(members)


BAD_RINGS: list[tuple[str, Callable[[Any], Any], RingProblem]] = [
    ("development", put(purpose="development"), RingProblem.DEVELOPMENT),
    ("other purpose", put(purpose="staging"), RingProblem.MALFORMED),
    ("other format", put(format="yuanka-key-ring-2"), RingProblem.MALFORMED),
    ("unknown member", put(extra=1), RingProblem.MALFORMED),
    ("missing member", lambda ring: ring.pop("pin_pepper"), RingProblem.MALFORMED),
    ("secret a number", put(index_key=1), RingProblem.MALFORMED),
    ("secret not base64", put(index_key="~" * 44), RingProblem.MALFORMED),
    ("key id 0", lambda ring: first_key(ring, id=0), RingProblem.MALFORMED),
    ("key id too high", lambda ring: first_key(ring, id=65_536), RingProblem.MALFORMED),
    ("suite 3", lambda ring: ring["issuer_keys"][0].update(suite=3), RingProblem.MALFORMED),
    ("kid 256", lambda ring: ring["issuer_keys"][0].update(kid=256), RingProblem.MALFORMED),
    (
        "token kid odd",
        lambda ring: ring["access_token_keys"][0].update(kid="a b"),
        RingProblem.MALFORMED,
    ),
    ("no keys", put(key_encryption_keys=[]), RingProblem.NO_SUCH_ACTIVE_KEY),
    ("no such key", put(active_key_encryption_key=9), RingProblem.NO_SUCH_ACTIVE_KEY),
    ("no such token key", put(active_access_token_key="x"), RingProblem.NO_SUCH_ACTIVE_KEY),
    (
        "key id twice",
        lambda ring: ring["key_encryption_keys"].append({"id": 1, "secret": key_text(9)}),
        RingProblem.DUPLICATE_ID,
    ),
    ("kid twice", lambda ring: ring["issuer_keys"][0].update(kid=2), RingProblem.DUPLICATE_ID),
    (
        "token kid twice",
        lambda ring: ring["access_token_keys"].append(
            {"kid": "development-1", "private_key": key_text(9)}
        ),
        RingProblem.DUPLICATE_ID,
    ),
    ("31 bytes", short("pin_pepper", 31), RingProblem.SHORT_SECRET),
    ("no bytes", short("code_master", 0), RingProblem.SHORT_SECRET),
    (
        "short key",
        lambda ring: first_key(ring, secret=b64encode(b"0123456789abcdef").decode()),
        RingProblem.SHORT_SECRET,
    ),
    ("zeros", put(index_key=b64encode(bytes(32)).decode()), RingProblem.WEAK_SECRET),
    ("a word", put(index_key=b64encode(b"changeme" * 4).decode()), RingProblem.WEAK_SECRET),
    (
        "reused",
        lambda ring: ring.update(index_key=ring["pin_pepper"]),
        RingProblem.REUSED_SECRET,
    ),
    (
        "reused across kinds",
        lambda ring: ring["issuer_keys"][0].update(private_key=ring["code_master"]),
        RingProblem.REUSED_SECRET,
    ),
    (
        "empty span",
        lambda ring: ring["issuer_keys"][0].update(sign_from=5, sign_until=5),
        RingProblem.EMPTY_WINDOW,
    ),
]


@pytest.mark.parametrize(
    ("change", "problem"), [case[1:] for case in BAD_RINGS], ids=[case[0] for case in BAD_RINGS]
)
def test_bad_rings_are_refused(change: Callable[[Any], None], problem: RingProblem) -> None:
    raw = changed(change)
    with pytest.raises(KeyRingRefused) as refused:
        sealing.parse_ring(raw, is_production=True)
    assert refused.value.problem is problem
    assert not any(secret in str(refused.value) for secret in texts_of(raw))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"\xff", RAW + b" " * 65_536])
def test_what_is_no_ring_is_refused(raw: bytes) -> None:
    with pytest.raises(KeyRingRefused) as refused:
        sealing.parse_ring(raw, is_production=False)
    assert refused.value.problem is RingProblem.MALFORMED


def test_a_good_ring_is_taken_and_finds_its_keys() -> None:
    ring = sealing.parse_ring(changed(lambda _: None), is_production=True)
    first = ring.issuer_key(1)
    assert first is not None
    assert (first.suite, ring.issuer_key(3)) == (1, None)
    assert ring.key_encryption_key(2) is None
    assert first.may_sign(NOW)
    assert first.may_sign(NOW - timedelta(days=1))
    assert not first.may_sign(NOW - timedelta(days=1, seconds=1))
    assert first.may_sign(NOW + timedelta(days=365, microseconds=-1))
    assert not first.may_sign(NOW + timedelta(days=365))


def put_file(path: Path, raw: bytes, mode: int) -> Path:
    path.write_bytes(raw)
    path.chmod(mode)
    return path


@pytest.mark.parametrize("mode", [0o400, 0o600])
def test_a_file_of_its_owner_alone_is_read(tmp_path: Path, mode: int) -> None:
    path = put_file(tmp_path / "ring.json", RAW, mode)
    assert sealing.load_ring(path, is_production=False).index_key == RING.index_key


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o666, 0o700, 0o440, 0o404, 0o620])
def test_a_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = put_file(tmp_path / "ring.json", RAW, mode)
    with pytest.raises(KeyRingRefused) as refused:
        sealing.load_ring(path, is_production=False)
    assert refused.value.problem is RingProblem.OPEN_TO_OTHERS


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_refused(tmp_path: Path) -> None:
    path = put_file(tmp_path / "ring.json", RAW, 0o600)
    os.chown(path, 12_345, 12_345)
    with pytest.raises(KeyRingRefused) as refused:
        sealing.load_ring(path, is_production=False)
    assert refused.value.problem is RingProblem.OPEN_TO_OTHERS


def test_an_absent_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.json", tmp_path):
        with pytest.raises(KeyRingRefused) as refused:
            sealing.load_ring(path, is_production=False)
        assert refused.value.problem is RingProblem.UNREADABLE


def test_development_rings_differ_and_production_refuses_them() -> None:
    assert sealing.make_development_ring(now=NOW) != RAW
    with pytest.raises(KeyRingRefused) as refused:
        sealing.parse_ring(RAW, is_production=True)
    assert refused.value.problem is RingProblem.DEVELOPMENT


def texts_of(raw: bytes) -> list[str]:
    """Return every secret of a ring in every spelling that a log might hold."""

    def strings(value: Any) -> list[str]:
        if isinstance(value, dict):
            return [text for member in value.values() for text in strings(member)]
        if isinstance(value, list):
            return [text for member in value for text in strings(member)]
        return [value] if isinstance(value, str) and len(value) == 44 else []

    found: list[str] = []
    for text in strings(json.loads(raw)):
        try:
            value = b64decode(text, validate=True)
        except ValueError:
            continue
        found += [text, value.hex(), repr(value), repr(value)[2:-1]]
    return found


@dataclasses.dataclass
class Holder:
    ring: KeyRing


def fault(sealed: bytes) -> str:
    """Return what the worst of loggers would write: the traceback with all locals."""
    try:
        unseal(sealed)
    except CannotOpen as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        return "".join(told.format())
    raise AssertionError


def test_nothing_prints_a_key() -> None:
    secrets_of_ring = texts_of(RAW)
    assert len(secrets_of_ring) == 4 * 7
    told = [
        repr(RING),
        str(RING),
        f"{RING}",
        f"{RING!r:>99}",
        format(RING.index_key, ""),
        repr(RING.issuer_keys),
        repr(RING.key_encryption_keys),
        repr(RING.access_token_keys),
        repr(Holder(RING)),
        json.dumps({"ring": RING, "key": RING.index_key}, default=repr),
        msgspec.json.encode({"ring": RING}, enc_hook=repr).decode(),
        "%s %r" % (RING, RING.pin_pepper),  # noqa: UP031 - the way of the logging module
        repr(RING.__rich_repr__() and list(RING.__rich_repr__())),
        fault(seal()[:64] + seal()[64:]),
        fault(seal()[:16] + seal()[16:]),
    ]
    for text in told:
        assert not any(secret in text for secret in secrets_of_ring)
    assert repr(RING) == "KeyRing(development)"
    assert "data_key = Secret(…)" in fault(seal()[:64] + seal()[64:])


@pytest.mark.parametrize("carry", [json.dumps, msgspec.json.encode, pickle.dumps, copy.deepcopy])
@pytest.mark.parametrize("thing", [RING, RING.index_key, {"ring": RING}])
def test_nothing_carries_a_key_away(carry: Callable[[Any], Any], thing: object) -> None:
    with pytest.raises(TypeError):
        carry(thing)


def test_secrets_compare_and_do_not_hash() -> None:
    assert Secret(b"a") == Secret(b"a")
    assert Secret(b"a") != Secret(b"b")
    assert Secret(b"a") != b"a"
    assert Secret(b"a").reveal() == b"a"
    with pytest.raises(TypeError):
        hash(RING.index_key)
    with pytest.raises(TypeError):
        hash(RING)
    assert not hasattr(RING.index_key, "__dict__")
