"""The repository's own files, for the rules of the house: which there are, parsed and as text."""

import ast
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PRODUCT = ("api", "identity", "wallet")
PYTHON = (*PRODUCT, "alembic", "simulators", "tests", "docs", "bench")

NOT_OURS = frozenset({"var", "build", "node_modules", "__pycache__"})
"""Folders that are made here and never committed; those with a dot in front are skipped too."""

KEPT_DOT_FOLDERS = frozenset({".ci"})
TEXT_SUFFIXES = frozenset(
    {"", ".css", ".html", ".js", ".json", ".lock", ".mako", ".md", ".py", ".toml", ".ts", ".txt"}
)


def _is_ours(path: Path) -> bool:
    return all(
        part not in NOT_OURS and (not part.startswith(".") or part in KEPT_DOT_FOLDERS)
        for part in path.relative_to(ROOT).parts[:-1]
    )


@cache
def python_files(*folders: str) -> tuple[Path, ...]:
    """Return the Python files of some top-level folders, in a fixed order."""
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return tuple(path for path in found if _is_ours(path))


@cache
def text_files() -> tuple[Path, ...]:
    """Return every file of ours that holds text."""
    return tuple(
        path
        for path in sorted(ROOT.rglob("*"))
        if path.is_file() and path.suffix in TEXT_SUFFIXES and _is_ours(path)
    )


def name_of(path: Path) -> str:
    """Return a file's path inside the repository."""
    return path.relative_to(ROOT).as_posix()


@cache
def tree_of(path: Path) -> ast.Module:
    """Return a file, parsed."""
    return ast.parse(path.read_text(), filename=name_of(path))


def comments_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the comments of a Python file with their lines; strings that look alike are none."""
    with tokenize.open(path) as file:
        for token in tokenize.generate_tokens(file.readline):
            if token.type == tokenize.COMMENT:
                yield token.start[0], token.string


def modules_imported(tree: ast.AST) -> set[str]:
    """Return what a tree imports, by full name; `from a import b` counts as `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found
