"""Nothing is silenced, postponed or skipped without saying why."""

import ast
import re
from collections.abc import Iterator

from tests.house.sources import (
    PYTHON,
    comments_of,
    modules_imported,
    name_of,
    python_files,
    tree_of,
)

POSTPONED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
TYPE_IGNORE = re.compile(r"#\s*type:\s*ignore")
TYPE_IGNORE_WITH_REASON = re.compile(r"# type: ignore\[[a-z, -]+\] +# \w.+")
NOQA = re.compile(r"#\s*noqa", re.IGNORECASE)
NOQA_WITH_CODE = re.compile(r"# noqa: [A-Z]+[0-9]+(, [A-Z]+[0-9]+)*\b")


def test_nothing_is_postponed_in_a_comment() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files(*PYTHON)
        for line, comment in comments_of(path)
        if POSTPONED.search(comment)
    ]
    assert found == []


def test_a_silenced_type_error_says_which_and_why() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files(*PYTHON)
        for line, comment in comments_of(path)
        if TYPE_IGNORE.search(comment) and not TYPE_IGNORE_WITH_REASON.search(comment)
    ]
    assert found == []


def test_a_silenced_lint_says_which() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files(*PYTHON)
        for line, comment in comments_of(path)
        if NOQA.search(comment) and not NOQA_WITH_CODE.search(comment)
    ]
    assert found == []


def skips_without_reason(tree: ast.AST) -> Iterator[int]:
    """Yield where a test is skipped, or expected to fail, in silence."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="skip" | "skipif" | "xfail", value=ast.Attribute(attr="mark")):
                if not _is_called_with_reason(tree, node):
                    yield node.lineno
            case ast.Call(func=ast.Attribute(attr="skip" | "xfail", value=ast.Name(id="pytest"))):
                if not node.args and not any(one.arg == "reason" for one in node.keywords):
                    yield node.lineno
            case _:
                continue


def _is_called_with_reason(tree: ast.AST, mark: ast.Attribute) -> bool:
    return any(
        isinstance(node, ast.Call)
        and node.func is mark
        and any(one.arg == "reason" for one in node.keywords)
        for node in ast.walk(tree)
    )


def test_a_skipped_test_says_why() -> None:
    found = [
        f"{name_of(path)}:{line}"
        for path in python_files("tests")
        for line in skips_without_reason(tree_of(path))
    ]
    assert found == []


def test_the_rule_sees_a_silent_skip() -> None:
    assert list(skips_without_reason(ast.parse("@pytest.mark.skip\ndef test(): ...")))
    assert list(skips_without_reason(ast.parse("@pytest.mark.skipif(now)\ndef test(): ...")))
    assert not list(skips_without_reason(ast.parse("pytest.skip('no browser')")))


def test_tests_are_functions_and_mock_nothing_of_ours() -> None:
    classes = [
        f"{name_of(path)}:{node.lineno}"
        for path in python_files("tests")
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test")
    ]
    mocking = [
        name_of(path)
        for path in python_files("tests")
        if any(name.startswith("unittest") for name in modules_imported(tree_of(path)))
    ]
    assert (classes, mocking) == ([], [])
