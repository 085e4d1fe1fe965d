"""Files lie where the house wants them, and none grows past its length (style.md, B and C2)."""

import ast

from tests.house.sources import (
    PRODUCT,
    PYTHON,
    ROOT,
    modules_imported,
    name_of,
    python_files,
    tree_of,
)

LINES_MAX = 400
TEST_LINES_MAX = 600
MIGRATIONS = "alembic/versions/"
"""A migration is one piece whatever its length, and never grows once it is deployed."""


def test_migrations_see_every_table() -> None:
    imported = modules_imported(tree_of(ROOT / "alembic" / "env.py"))
    with_tables = {
        name_of(path).removesuffix(".py").replace("/", ".")
        for path in python_files(*PRODUCT)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and any(isinstance(base, ast.Name) and base.id == "Base" for base in node.bases)
    }
    assert len(with_tables) > 10
    assert with_tables - imported == set()


def test_alembic_is_not_a_package() -> None:
    # With an __init__.py the folder would be taken for the library of that name.
    assert list((ROOT / "alembic").rglob("__init__.py")) == []


def test_no_file_is_too_long() -> None:
    too_long = {
        name_of(path): lines
        for path in python_files(*PYTHON)
        if not name_of(path).startswith(MIGRATIONS)
        and (lines := len(path.read_text().splitlines()))
        > (TEST_LINES_MAX if name_of(path).startswith("tests/") else LINES_MAX)
    }
    assert too_long == {}


def test_packages_hold_nothing_but_a_docstring() -> None:
    filled = [
        name_of(path)
        for path in python_files(*PYTHON)
        if path.name == "__init__.py"
        and any(
            not (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            for node in tree_of(path).body
        )
    ]
    assert filled == []


def test_every_file_says_what_it_is() -> None:
    silent = [
        name_of(path)
        for path in python_files(*PRODUCT, "simulators", "alembic", "docs")
        if path.name != "__init__.py" and not ast.get_docstring(tree_of(path))
    ]
    assert silent == []
