"""One word for one thing: the words that the glossary rules out are nobody's name (style.md C1)."""

import ast
import re
from collections.abc import Iterator
from itertools import pairwise

from tests.house.sources import PRODUCT, name_of, python_files, tree_of

RULED_OUT = {
    "admin": "operator, staff",
    "blacklist": "deny list",
    "checkin": "admission",
    "customer": "citizen, holder",
    "deposit": "recharge",
    "gateway": "channel",
    "journal": "transfer, entry",
    "membership": "pass",
    "preauth": "authorization",
    "redemption": "admission",
    "reversal": "refund",
    "revocation": "deny list",
    "ticket": "pass",
    "topup": "recharge",
    "user": "citizen, holder",
    "venue": "park",
    "webhook": "notice",
    "whitelist": "trust list",
}
"""Word → what it is called here. Words that also mean something else (credit, tag, statement,
clearing, payment, error, machine) are left to the reader."""

PAIRS = {("pre", "auth"), ("top", "up")}
"""Words of the table that are also written as two."""

PROVIDERS = (
    "identity/people/sign_ins",
    "identity/providers/",
    "wallet/channels/",
    "wallet/recharge/",
)
CALLERS = ("api/services", "api/settings", "api/commands/")
SYSTEM = ("api/embedded_",)

ALLOWED = {
    "AlipayGateway": (PROVIDERS + CALLERS, "Alipay's own word for its address"),
    "AlipayGatewaySettings": (PROVIDERS + CALLERS, "the same"),
    "_gateway": (PROVIDERS, "the same"),
    "alipay_gateway": (PROVIDERS, "the same"),
    "gateway": (PROVIDERS + CALLERS, "the same"),
    "gateway_url": (PROVIDERS + CALLERS, "the same"),
    "payer_user_id": (PROVIDERS + CALLERS, "an id that a provider gives beside the open id"),
    "user_id": (PROVIDERS, "an id that a provider gives beside the open id"),
    "_system_user": (SYSTEM, "an account of the operating system"),
    "system_user": (SYSTEM, "an account of the operating system"),
    "user": (SYSTEM, "an account of the operating system"),
    "users": (SYSTEM, "accounts of the operating system"),
}
"""Identifier → where it may stand, and why: each is the word of somebody else."""

WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")


def _identifiers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.keyword(arg=str(name)) | ast.alias(name=name):
                yield name
            case _:
                continue


def words_ruled_out(name: str) -> set[str]:
    """Return the words of an identifier that the glossary has another word for."""
    words = [word.lower() for word in WORD.findall(name)]
    singular = {word.removesuffix("s") for word in words} | set(words)
    pairs = {"".join(pair) for pair in pairwise(words) if pair in PAIRS}
    return (singular & set(RULED_OUT)) | pairs


def _found() -> set[tuple[str, str]]:
    return {
        (identifier, name_of(path))
        for path in python_files(*PRODUCT)
        for identifier in (*_identifiers(tree_of(path)), path.stem)
        if words_ruled_out(identifier)
    }


def test_things_are_called_what_the_glossary_calls_them() -> None:
    found = [
        f"{file}: {identifier}, say {', '.join(RULED_OUT[w] for w in words_ruled_out(identifier))}"
        for identifier, file in sorted(_found())
        if identifier not in ALLOWED or not file.startswith(ALLOWED[identifier][0])
    ]
    assert found == []


def test_no_exception_is_kept_for_nothing() -> None:
    assert set(ALLOWED) - {identifier for identifier, _ in _found()} == set()


def test_the_rule_reads_words_inside_names() -> None:
    assert words_ruled_out("TicketCustomers") == {"ticket", "customer"}
    assert words_ruled_out("top_up_fen") == {"topup"}
    assert words_ruled_out("userspace_or_checking") == set()
