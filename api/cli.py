"""`yuanka`: the command line (api.md). Each command imports what it needs, when it runs."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

FILE_OF_COMMAND = {
    "demo": "demo",
    "tour": "tour",
    "serve": "servers",
    "work": "servers",
    "migrate": "servers",
    "prove": "servers",
    "draft-migration": "drafts",
    "specimen": "specimen",
    "code": "codes",
}
"""Which file of `api.commands` registers a command, so that no other is imported for it."""


SETUP_PROBLEMS = {
    "SettingsRefused",
    "KeyRingRefused",
    "CannotStart",
    "OtherMajorVersion",
    "CannotReach",
}
"""By name, so that saying what is wrong does not import the server."""


def make_parser(command: str | None) -> argparse.ArgumentParser:
    """Return the parser of one command, or of all of them where none is known by that name."""
    wanted = [FILE_OF_COMMAND[command]] if command in FILE_OF_COMMAND else FILE_OF_COMMAND.values()
    parser = argparse.ArgumentParser(
        prog="yuanka", description="Yuanka 园卡: a city's electronic card."
    )
    subparsers = parser.add_subparsers(required=True, metavar="command")
    for file in dict.fromkeys(wanted):
        import_module(f"api.commands.{file}").register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    given = list(sys.argv[1:] if argv is None else argv)
    arguments = make_parser(given[0] if given else None).parse_args(given)
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        return 130
    except Exception as problem:
        if type(problem).__name__ not in SETUP_PROBLEMS:
            raise
        print(f"yuanka: {problem}", file=sys.stderr)
        return 78  # EX_CONFIG of sysexits.h: the settings are wrong, starting again is no help
    return code


if __name__ == "__main__":
    sys.exit(main())
