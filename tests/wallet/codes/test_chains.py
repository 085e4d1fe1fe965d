import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from tests.wallet.codes.issuing import ISSUERS, Issuer, flip
from wallet.codes.chains import Chain, Position, device_key, follow, make_code, make_tag
from wallet.codes.suites import SUITES
from wallet.codes.wire import Credential, encode, parse

VECTORS = json.loads(Path(__file__).parents[2].joinpath("vectors/yk1.json").read_text())
LAST = 299
slots = st.integers(0, LAST)


@pytest.mark.parametrize("group", VECTORS, ids=lambda group: group["suite"])
def test_a_phone_makes_the_code_of_the_vectors(group: dict[str, Any]) -> None:
    shown = parse(group["code"])
    fields = {name: getattr(shown, name) for name in Credential.__struct_fields__}
    suite, seed = SUITES[shown.suite], bytes.fromhex(group["seed"])
    chain = Chain(suite, cid=shown.cid, seed=seed, slot_count=shown.span)
    credential = Credential(**(fields | {"anchor": chain.anchor}))
    key = bytes.fromhex(group["device_key"])
    for slot, name in ((group["slot"], "code"), (group["slot"] + 1, "code_next_slot")):
        proof = chain.proof(slot)
        code = make_code(credential, shown.signature, slot=slot, proof=proof, key=key)
        assert encode(code) == group[name]


@given(st.sampled_from(ISSUERS), slots, slots)
def test_a_proof_is_followed_from_any_position_at_the_shorter_cost(
    issuer: Issuer, slot: int, known_slot: int
) -> None:
    code = issuer.code(slot, span=LAST + 1)
    chain = issuer.chain(code)
    known = Position(known_slot, chain.proof(known_slot))
    assert follow(issuer.suite, code, Position(-1, code.anchor)) == slot + 1
    shortest = abs(slot - known_slot) if known_slot <= slot else min(known_slot - slot, slot + 1)
    assert follow(issuer.suite, code, known) == shortest


@given(st.sampled_from(ISSUERS), slots, st.integers(-1, LAST), st.integers(0, 127))
def test_no_altered_proof_is_followed(issuer: Issuer, slot: int, known_slot: int, bit: int) -> None:
    code = issuer.code(slot, span=LAST + 1)
    chain = issuer.chain(code)
    known = Position(known_slot, chain.anchor if known_slot < 0 else chain.proof(known_slot))
    forged = structs.replace(code, proof=flip(code.proof, bit))
    assert follow(issuer.suite, forged, known) is None


def test_the_next_proof_costs_less_than_a_checkpoint(
    issuer: Issuer, computed: Counter[str]
) -> None:
    counted = SUITES[issuer.suite.number]
    chain = Chain(counted, cid=bytes(17), seed=bytes(16), slot_count=6000)
    assert computed["digest"] == 6000
    for slot in (0, 1, 63, 64, 65, 3000, 5951, 5998, 5999):
        computed.clear()
        chain.proof(slot)
        assert computed["digest"] < 64


@pytest.mark.parametrize("slot_count", [1, 2, 64, 65, 66])
def test_checkpoints_change_no_proof(issuer: Issuer, slot_count: int) -> None:
    chain = Chain(issuer.suite, cid=bytes(17), seed=bytes(16), slot_count=slot_count)
    link = bytes(16)
    for slot in reversed(range(slot_count)):
        assert chain.proof(slot) == link
        message = b"YK1H" + bytes(17) + slot.to_bytes(2, "big") + link
        link = issuer.suite.digest(message)[:16]
    assert chain.anchor == link


@pytest.mark.parametrize("slot", [-1, 10])
def test_a_chain_has_no_proof_outside_itself(issuer: Issuer, slot: int) -> None:
    chain = Chain(issuer.suite, cid=bytes(17), seed=bytes(16), slot_count=10)
    with pytest.raises(ValueError, match="outside"):
        chain.proof(slot)


def test_a_seed_has_sixteen_bytes(issuer: Issuer) -> None:
    with pytest.raises(ValueError, match="seed"):
        Chain(issuer.suite, cid=bytes(17), seed=bytes(15), slot_count=10)


def test_each_phone_generation_has_its_own_key(issuer: Issuer) -> None:
    master, number = b"m" * 32, issuer.suite.number
    keys = {
        device_key(master, issuer=1, card=bytes(8), gen=1, suite=number),
        device_key(master, issuer=1, card=bytes(8), gen=2, suite=number),
        device_key(master, issuer=2, card=bytes(8), gen=1, suite=number),
        device_key(master, issuer=1, card=bytes(7) + b"\1", gen=1, suite=number),
    }
    assert len(keys) == 4
    message = b"YK1K" + bytes.fromhex("00000001") + bytes(8) + b"\x01"
    assert issuer.suite.mac(master, message) in keys


def test_a_tag_depends_on_the_slot_and_the_key(issuer: Issuer) -> None:
    code = issuer.code()
    assert make_tag(bytes(range(32)), code) == code.tag
    assert make_tag(bytes(32), code) != code.tag
    assert make_tag(bytes(range(32)), structs.replace(code, slot=1)) != code.tag
