import json
from typing import Any

import pytest

from wallet.codes.reasons import Refused
from wallet.codes.trust import Trust, TrustMalformed, parse_trust

PUB = "ab" * 32


def listed(**changes: Any) -> Trust:
    key = {"kid": 7, "suite": 1, "pub": PUB, "types": [0, 1], "verify_until": 2000} | changes
    return parse_trust(json.dumps({"issuers": [{"iss": 32020001, "keys": [key]}]}))


def reason_at(trust: Trust, now_unix: int, *, issuer: int = 32020001, key_id: int = 7) -> int:
    try:
        trust.key_at(now_unix, issuer=issuer, key_id=key_id)
    except Refused as refusal:
        return refusal.reason.value
    return 0


def test_the_bare_form_is_read() -> None:
    key = listed().key_at(1000, issuer=32020001, key_id=7)
    assert (key.suite, key.public_key.hex(), key.kinds) == (1, PUB, frozenset({0, 1}))


def test_a_key_is_found_by_issuer_and_id() -> None:
    assert reason_at(listed(), 1000, issuer=32020002) == 201
    assert reason_at(listed(), 1000, key_id=8) == 202


def test_verify_time_is_half_open() -> None:
    trust = listed(sign_from=1000)
    reasons = [reason_at(trust, now_unix) for now_unix in (999, 1000, 1999, 2000)]
    assert reasons == [202, 0, 0, 202]


def test_the_signed_forms_further_members_are_understood() -> None:
    key = {"kid": 7, "suite": 1, "pub": PUB, "types": [1], "verify_until": 2000, "sign_from": 0}
    whole = {
        "v": 1,
        "seq": 12,
        "issued": 900,
        "next_update": 1900,
        "issuers": [
            {
                "iss": 32020001,
                "city": "320200",
                "name": "无锡",
                "api": "/",
                "groups": {"0": "公园"},
                "keys": [key | {"sign_until": 1500, "status": "active"}],
            }
        ],
        "accept": [{"by": 1, "purposes": ["gate"], "floor": 0}],
    }
    assert reason_at(parse_trust(json.dumps(whole)), 1000) == 0


def test_revocation_bites_at_once() -> None:
    assert reason_at(listed(status="revoked"), 1000) == 202


def test_a_key_of_an_unknown_suite_is_kept_apart_from_no_key() -> None:
    assert listed(suite=9, pub="00").key_at(1000, issuer=32020001, key_id=7).suite == 9


@pytest.mark.parametrize(
    "changes",
    [
        {"pub": "ab"},
        {"pub": "zz" * 32},
        {"pub": "ab" * 64},
        {"suite": 2},
        {"kid": 256},
        {"kid": "7"},
        {"verify_until": None},
        {"types": 1},
    ],
)
def test_a_key_that_cannot_be_one_spoils_the_list(changes: dict[str, Any]) -> None:
    with pytest.raises(TrustMalformed):
        listed(**changes)


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"issuers": 1}', b"\xff", b'{"issuers":[{}]}']
)
def test_anything_else_is_no_trust_list(text: bytes) -> None:
    with pytest.raises(TrustMalformed):
        parse_trust(text)


def test_nothing_stands_in_the_list_twice() -> None:
    key = {"kid": 7, "suite": 1, "pub": PUB, "types": [1], "verify_until": 2000}
    issuer = {"iss": 1, "keys": [key]}
    with pytest.raises(TrustMalformed, match="twice"):
        parse_trust(json.dumps({"issuers": [issuer, issuer]}))
    with pytest.raises(TrustMalformed, match="twice"):
        parse_trust(json.dumps({"issuers": [{"iss": 1, "keys": [key, key]}]}))
