"""The chart of accounts (科目表): which kinds of account there are, and how low each may go.

Source: docs/money.md, after ledger.md C.1. Balances are kept credit-positive: what the city owes
somebody is above zero, what somebody owes the city is below. So a liability has a floor, an asset
has a ceiling, and all balances of a book sum to zero.
"""

from enum import StrEnum
from typing import Literal, NamedTuple

Side = Literal["asset", "liability", "income", "expense"]


class Kind(StrEnum):
    """A kind of account; the value is what the row says."""

    CLEARING_WECHAT_PAY = "clearing.wechat_pay"
    CLEARING_ALIPAY = "clearing.alipay"
    CARD_PRINCIPAL = "card.principal"
    REFUND_PAYABLE = "refund.payable"
    MERCHANT_PAYABLE = "merchant.payable"
    SUSPENSE_UNKNOWN_IN = "suspense.unknown_in"
    PASS_DEFERRED = "pass.deferred"  # noqa: S105  # a park pass, not a password


class Rule(NamedTuple):
    """What holds for every account of a kind."""

    number: int
    side: Side
    floor_fen: int | None
    """Lowest balance allowed; None where the account stands for the outside world."""
    owner: Literal["city", "card", "merchant", "pass_type"]


CHART: dict[Kind, Rule] = {
    Kind.CLEARING_WECHAT_PAY: Rule(1010, "asset", None, "city"),
    Kind.CLEARING_ALIPAY: Rule(1011, "asset", None, "city"),
    Kind.CARD_PRINCIPAL: Rule(2010, "liability", 0, "card"),
    Kind.REFUND_PAYABLE: Rule(2015, "liability", 0, "city"),
    Kind.MERCHANT_PAYABLE: Rule(2020, "liability", 0, "merchant"),
    Kind.SUSPENSE_UNKNOWN_IN: Rule(2900, "liability", 0, "city"),
    Kind.PASS_DEFERRED: Rule(2050, "liability", 0, "pass_type"),
}
