"""Documents that are tables of what the code or style.md says: `make docs` writes them anew.

A test holds the files against what this would write, so that neither can drift.
"""

import pkgutil
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from api.problems import FAULT, HTTP_SAID
from identity.kernel import Refusal
from wallet.codes.reasons import Reason

ROOT = Path(__file__).parent.parent
PRODUCT = ("api", "identity", "wallet")

WRITTEN_BY = "<!-- Written by `make docs`. Change the code, then run it again. -->"


def refusals() -> list[type[Refusal]]:
    """Return every refusal of the product, by code."""
    for package in PRODUCT:
        for module in pkgutil.walk_packages(import_module(package).__path__, f"{package}."):
            import_module(module.name)
    ours = (one for one in Refusal.by_code.values() if one.__module__.split(".")[0] in PRODUCT)
    return sorted(ours, key=lambda refusal: refusal.code)


def table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def errors() -> str:
    """Return docs/errors.md."""
    refused = [
        (
            f"`{one.code}`",
            str(one.status),
            "yes" if one.retryable else "",
            one.title.zh,
            one.title.en,
            f"{one.next_step.zh} {one.next_step.en}",
        )
        for one in refusals()
    ]
    by_http = [
        (f"`{code}`", status, title.zh, title.en, f"{next_step.zh} {next_step.en}")
        for status, (code, title, next_step) in [
            *((str(status), said) for status, said in HTTP_SAID.items()),
            ("500", FAULT),
        ]
    ]
    reasons = [
        (
            str(int(reason)),
            f"`{reason.name}`",
            reason.zh.says,
            reason.en.says,
            f"{reason.zh.next} {reason.en.next}",
        )
        for reason in Reason
    ]
    return f"""# Refusals and reasons 拒绝与原因码

{WRITTEN_BY}

There are two kinds of no.

A **problem** (`application/problem+json`, RFC 9457) answers a request that is malformed, unsigned,
reused or impossible. It has `type` (`/problems/<code>`), `title`, `status`, `detail` (what to do
next), `code`, `request_id`, `retryable`, and facts. `Accept-Language` chooses zh-CN or en.

A **reason** answers a code. It is a number in an ordinary answer: a declined charge is stored and
answered 201, a gate's no is answered 200. 0 accepts.

A status of 409 or 422 uses the request number up: the same request meets the same answer again.
A retryable refusal does not.

## Problems

{table(("Code", "Status", "Retryable", "中文", "English", "Next step"), refused)}

## Problems of HTTP itself, and our own faults

{table(("Code", "Status", "中文", "English", "Next step"), by_http)}

## Reasons

Numbers and names are fixed by the code format. Some are reserved for what does not exist yet.

{table(("Number", "Name", "中文", "English", "Next step"), reasons)}
"""


def glossary() -> str:
    """Return docs/glossary.md: the table of style.md, C1."""
    style = (ROOT / "style.md").read_text()
    section = style.partition("### C1 ")[2].partition("\n### ")[0]
    rows = "\n".join(line for line in section.splitlines() if line.startswith("|"))
    return f"""# Glossary 术语表

{WRITTEN_BY}

One term for each thing, in code, in the API and in conversation. The words on the right are not
used as names in code; a test holds the clear ones.

{rows}
"""


DOCUMENTS: dict[str, Callable[[], str]] = {
    "docs/errors.md": errors,
    "docs/glossary.md": glossary,
}
"""Path in the repository → what it should hold."""


def main() -> None:
    """Write every document."""
    for name, make in DOCUMENTS.items():
        (ROOT / name).write_text(make())


if __name__ == "__main__":
    main()
