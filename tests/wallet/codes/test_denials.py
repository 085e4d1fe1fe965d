import json
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wallet.codes.issuing import CARD, ISSUERS, NOW_UNIX, Issuer, flip
from wallet.codes.denials import DenyList, DenyListMalformed, parse_deny_list

OTHER = bytes.fromhex("ffffffffffffffff")


def signed(
    issuer: Issuer, entries: list[tuple[bytes, int, int, int]], *, count: int | None = None
) -> bytes:
    """A list as its issuer writes it: card, MIN_GEN, CODE, UNTIL."""
    number = len(entries) if count is None else count
    head = b"YKD1" + struct.pack(">IIIIBBI", 32020001, 9, 8, 5, 7, issuer.suite.number, number)
    data = head + b"".join(struct.pack(">8sBBI", *entry) for entry in entries)
    return data + issuer.suite.sign(issuer.private_key, b"YK1D" + data)


def read(signer: Issuer, data: bytes, **key_changes: Any) -> DenyList:
    return parse_deny_list(data, trust=signer.trust(**key_changes), now_unix=NOW_UNIX)


def bare(*rows: list[Any]) -> DenyList:
    return read(ISSUERS[0], json.dumps(rows).encode())


def test_a_signed_list_is_read(issuer: Issuer) -> None:
    entries = [(CARD, 2, 1, NOW_UNIX + 60), (OTHER, 255, 1, NOW_UNIX + 60)]
    deny_list = read(issuer, signed(issuer, entries))
    assert (deny_list.issuer, deny_list.sequence, deny_list.base) == (32020001, 9, 8)
    assert deny_list.refuses(issuer.credential(gen=1), now_unix=NOW_UNIX)
    assert not deny_list.refuses(issuer.credential(gen=2), now_unix=NOW_UNIX)
    assert deny_list.refuses(issuer.credential(card=OTHER, gen=254), now_unix=NOW_UNIX)
    assert not deny_list.refuses(issuer.credential(card=bytes(8)), now_unix=NOW_UNIX)


def test_an_empty_list_is_one(issuer: Issuer) -> None:
    assert not read(issuer, signed(issuer, [])).denials


def test_entries_vanish_by_themselves(issuer: Issuer) -> None:
    deny_list = read(issuer, signed(issuer, [(CARD, 255, 1, NOW_UNIX)]))
    assert deny_list.refuses(issuer.credential(), now_unix=NOW_UNIX - 1)
    assert not deny_list.refuses(issuer.credential(), now_unix=NOW_UNIX)


def test_an_issuer_denies_only_its_own_cards(issuer: Issuer) -> None:
    deny_list = read(issuer, signed(issuer, [(CARD, 255, 1, NOW_UNIX + 60)]))
    assert not deny_list.refuses(issuer.credential(issuer=31010001), now_unix=NOW_UNIX)


@pytest.mark.parametrize(
    "key_changes",
    [
        {"issuer": 1},
        {"key_id": 8},
        {"verify_until_unix": NOW_UNIX},
        {"is_revoked": True},
        {"suite": 9},
    ],
)
def test_a_list_needs_a_key_its_issuer_may_use(issuer: Issuer, key_changes: dict[str, Any]) -> None:
    with pytest.raises(DenyListMalformed):
        read(issuer, signed(issuer, []), **key_changes)


def test_cards_stand_in_ascending_order_and_once(issuer: Issuer) -> None:
    low, high = (CARD, 1, 1, 5), (OTHER, 1, 1, 5)
    for entries in ([high, low], [low, low]):
        with pytest.raises(DenyListMalformed, match="ascending"):
            read(issuer, signed(issuer, entries))


def test_the_number_of_entries_is_that_of_the_bytes(issuer: Issuer) -> None:
    for count in (0, 2, 2**32 - 1):
        with pytest.raises(DenyListMalformed, match="length"):
            read(issuer, signed(issuer, [(CARD, 1, 1, 5)], count=count))


@given(st.sampled_from(ISSUERS), st.integers(0, 8 * 104 - 1))
def test_no_altered_list_is_believed(issuer: Issuer, bit: int) -> None:
    data = signed(issuer, [(CARD, 255, 1, NOW_UNIX + 60)])
    assert len(data) == 104
    with pytest.raises(DenyListMalformed):
        read(issuer, flip(data, bit))


@given(st.binary().map(lambda tail: b"YKD1" + tail) | st.binary())
def test_no_bytes_make_the_reader_raise_anything_else(data: bytes) -> None:
    with pytest.raises(DenyListMalformed):
        read(ISSUERS[0], data)


def test_the_bare_form_holds_for_ever_and_for_all_issuers(issuer: Issuer) -> None:
    deny_list = bare([CARD.hex(), 2], [CARD.hex(), 1])
    assert deny_list.refuses(issuer.credential(gen=1), now_unix=2**40)
    assert deny_list.refuses(issuer.credential(gen=1, issuer=1), now_unix=0)
    assert not deny_list.refuses(issuer.credential(gen=2), now_unix=0)


@pytest.mark.parametrize("row", [["zz", 1], ["00", 1], [CARD.hex(), 256], [CARD.hex()], [1, 1]])
def test_odd_rows_spoil_the_bare_form(row: list[Any]) -> None:
    with pytest.raises(DenyListMalformed):
        bare(row)
