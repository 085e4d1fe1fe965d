"""Statements: every kind of movement has a name."""

import re
from pathlib import Path

from api.citizen.histories import CALLED

WALLET = Path(__file__).parents[2] / "wallet"
NOT_ON_A_CARD = {"recharge.refund_pay", "recharge.unknown"}
"""Kinds that move money between the issuer's own accounts."""


def test_every_kind_of_transfer_that_touches_a_card_has_a_title() -> None:
    sources = "\n".join(path.read_text() for path in WALLET.rglob("*.py"))
    named = re.findall(r'NewTransfer\(\s*new_id\(now\),\s*"([a-z_.]+)"', sources)
    chosen = re.findall(r'kind = "([a-z_.]+)" if \w+ else "([a-z_.]+)"', sources)
    kinds = {*named, *(kind for pair in chosen for kind in pair)}
    assert len(kinds) >= 6, "the pattern no longer finds the verbs"
    assert kinds - NOT_ON_A_CARD == set(CALLED)
