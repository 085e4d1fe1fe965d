"""Money is whole fen: nothing named `…_fen` ever meets a fraction (style.md C2)."""

import ast
from collections.abc import Iterator

import pytest

from tests.house.sources import PRODUCT, modules_imported, name_of, python_files, tree_of

DECIMAL_ALLOWED = frozenset({"wallet/channels/channel.py"})
"""Where yuan in a provider's text become fen, and nowhere else."""


def _names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id
        elif isinstance(inner, ast.Attribute):
            yield inner.attr


def _speaks_of_fen(node: ast.AST) -> bool:
    return any(name.endswith("_fen") for name in _names(node))


def _has_fraction(node: ast.AST) -> bool:
    return any(
        (isinstance(inner, ast.BinOp) and isinstance(inner.op, ast.Div))
        or (isinstance(inner, ast.Constant) and isinstance(inner.value, float))
        or (isinstance(inner, ast.Name) and inner.id in {"float", "Decimal", "Fraction"})
        for inner in ast.walk(node)
    )


def _parts(node: ast.AST) -> tuple[list[ast.AST], list[ast.AST | None]]:
    """Return what a node names, and what it puts there."""
    match node:
        case ast.Assign():
            return list(node.targets), [node.value]
        case ast.AugAssign() | ast.NamedExpr():
            return [node.target], [node.value]
        case ast.AnnAssign():
            return [node.target], [node.annotation, node.value]
        case ast.arg():
            return [ast.Name(node.arg)], [node.annotation]
        case ast.keyword(arg=str(name)):
            return [ast.Name(name)], [node.value]
        case ast.BinOp(op=ast.Div()) | ast.Call(func=ast.Name(id="float")):
            return [node], [node]
        case _:
            return [], []


def faults(tree: ast.AST) -> Iterator[int]:
    """Yield the lines where fen and fractions meet."""
    for node in ast.walk(tree):
        named, put = _parts(node)
        if any(map(_speaks_of_fen, named)) and any(one and _has_fraction(one) for one in put):
            yield getattr(node, "lineno", 0)


def test_no_fen_meets_a_fraction() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files(*PRODUCT, "simulators")
        for line in faults(tree_of(path))
        if name_of(path) not in DECIMAL_ALLOWED
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "half_fen = price_fen / 2",
        "x = float(price_fen)",
        "price_fen = 1.5",
        "price_fen: float = 1",
        "row.price_fen *= 0.9",
        "charge(amount_fen=total / 3)",
        "def pay(amount_fen: float) -> None: ...",
        "if (left_fen := Decimal('1')): pass",
    ],
)
def test_the_rule_sees_a_fraction(source: str) -> None:
    assert list(faults(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["half_fen = price_fen // 2", "ratio = done / total", "price_fen = 100"]
)
def test_the_rule_leaves_whole_fen_alone(source: str) -> None:
    assert list(faults(ast.parse(source))) == []


def test_decimals_are_met_only_where_yuan_are_read() -> None:
    users = {
        name_of(path)
        for path in python_files(*PRODUCT)
        if modules_imported(tree_of(path)) & {"decimal", "fractions"}
    }
    assert users <= DECIMAL_ALLOWED
