"""A migration says before anything else when it is deployed and what it locks."""

import ast
import re
from pathlib import Path

import pytest

from tests.house.sources import ROOT, name_of, tree_of

MIGRATIONS = sorted((ROOT / "alembic" / "versions").glob("*.py"))
DATED = re.compile(r"\d{8}_[a-z][a-z0-9_]*\.py")


@pytest.mark.parametrize("path", MIGRATIONS, ids=name_of)
def test_the_first_line_says_when_and_what_is_locked(path: Path) -> None:
    first_line = (ast.get_docstring(tree_of(path)) or "").split("\n\n")[0].replace("\n", " ")
    assert re.search(r"\b(pre|post)-deploy\b", first_line)
    # Where there is nothing yet, there is nothing to lock.
    assert re.search(r"\block|\bempty schema\b", first_line)


@pytest.mark.parametrize("path", MIGRATIONS, ids=name_of)
def test_a_migration_has_a_date_and_a_subject(path: Path) -> None:
    assert DATED.fullmatch(path.name)


@pytest.mark.parametrize("path", MIGRATIONS, ids=name_of)
def test_going_back_is_written_or_refused_with_a_reason(path: Path) -> None:
    functions = [node for node in tree_of(path).body if isinstance(node, ast.FunctionDef)]
    back = next(node for node in functions if node.name == "downgrade")
    assert not all(isinstance(statement, ast.Pass) for statement in back.body)


def test_there_is_one_line_of_migrations() -> None:
    revisions, parents = set(), []
    for path in MIGRATIONS:
        values = {
            target.id: ast.literal_eval(node.value)
            for node in tree_of(path).body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id in {"revision", "down_revision"}
        }
        revisions.add(values["revision"])
        parents.append(values["down_revision"])
    assert len(parents) == len(set(parents)), "two migrations follow the same one"
    assert set(parents) - {None} <= revisions
