"""Secrets are handled in few places and compared in constant time."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.house.sources import PRODUCT, modules_imported, name_of, python_files, tree_of

ONLY_READER_OF = {
    "jwt": {"identity/access_tokens.py"},
    # The demo's caller also plays the operator's phone.
    "pyotp": {"identity/passwords.py", "api/commands/callers.py"},
    "argon2": {"identity/passwords.py"},
    "alipay": {"identity/providers/alipay_gateway.py"},
    "wechatpayv3": {"wallet/channels/wechat_pay.py"},
}
"""A library of secrets or signatures → the files that may know it."""

SECRET = re.compile(r"(^|_)(secret|password|pin|totp|csrf|mac|hmac|tag|signature|proof)(_hash)?$")
"""What a value is called that must not be found out byte by byte."""

NOT_SECRET = {"identity/people/pictures.py:tag": "the number of a field inside a picture file"}
"""`file:name` → why an ordinary comparison is fine there."""


def _operand(node: ast.expr) -> str:
    """Return the name of what is compared; a column of a table is compared by the database."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        owner = node.value
        is_column = isinstance(owner, ast.Name) and owner.id[:1].isupper()
        return "" if is_column else node.attr
    return ""


def careless(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield where a secret is compared by == or !=."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        if not any(isinstance(operator, ast.Eq | ast.NotEq) for operator in node.ops):
            continue
        for operand in (node.left, *node.comparators):
            if SECRET.search(_operand(operand)):
                yield node.lineno, _operand(operand)


@pytest.mark.parametrize("library", sorted(ONLY_READER_OF))
def test_a_library_of_secrets_is_known_to_one_file(library: str) -> None:
    users = {
        name_of(path)
        for path in python_files(*PRODUCT)
        if any(name.split(".")[0] == library for name in modules_imported(tree_of(path)))
    }
    assert users == ONLY_READER_OF[library]


def test_secrets_are_compared_in_constant_time() -> None:
    found = [
        f"{name_of(path)}:{line} {name}"
        for path in python_files(*PRODUCT)
        for line, name in careless(tree_of(path))
        if f"{name_of(path)}:{name}" not in NOT_SECRET
    ]
    assert found == []


def test_the_rule_sees_a_careless_comparison() -> None:
    assert list(careless(ast.parse("if given == session.csrf_hash: pass")))
    assert not list(careless(ast.parse("select(Row).where(Row.token_hash == digest)")))


def test_nothing_random_comes_from_the_random_module() -> None:
    users = {
        name_of(path)
        for path in python_files(*PRODUCT)
        if "random" in modules_imported(tree_of(path))
    }
    assert users == set()
