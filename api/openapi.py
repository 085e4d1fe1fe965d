"""OpenAPI: what the framework writes, made true, and the page that shows it without a CDN."""

import re
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin, SwaggerRenderPlugin
from litestar.openapi.spec import Components

from api.auth import (
    SECURITY_SCHEMES,
    ClockSkew,
    SignatureInvalid,
    SignatureMalformed,
)
from api.examples import EXAMPLES
from api.problems import MEDIA_TYPE, Malformed, TooLarge, example_of
from identity.kernel import Refusal
from identity.people.step_ups import StepUpRequired
from identity.staff.operators import CsrfRefused, SessionRequired
from identity.tokens import TokenRefused
from wallet.ledger.posting import InProgress, Overloaded, Unavailable

PROBLEM_SCHEMA = "#/components/schemas/ProblemDocument"

SHARED_REFUSALS: dict[str, list[type[Refusal]]] = {
    "citizen": [TokenRefused],
    "merchant": [SignatureInvalid, SignatureMalformed, ClockSkew],
    "gate": [SignatureInvalid, SignatureMalformed, ClockSkew],
    "operator": [SessionRequired, CsrfRefused],
}
PAGE_OF = re.compile(r"Page_.*\.(?P<item>\w+)_")
"""What the generator calls the schema of a page of some Struct."""
ASSETS_PATH = "/schema/assets"

DESCRIPTION = """
园卡平台接口。金额为整数分（`…_fen`）；时间为 RFC 3339 UTC（`…_at`）；业务日期为北京时间（`…_on`）。

- Citizens send `Authorization: Bearer`; merchants and gates sign (RFC 9421, `yuanka-v1`);
  operators use a cookie and `X-CSRF-Token`.
- A "no" by code, card or money is an answer, not an error; problems are RFC 9457.
- Every write happens once: repeat a request with its number and the first answer comes back.
"""


class TrueJson(JsonRenderPlugin):
    """The document with what the generator leaves out."""

    _bytes: bytes | None = None

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        """Return the document as JSON; it is the same for as long as the process lives."""
        if self._bytes is None:
            self._bytes = super().render(request, made_true(deepcopy(openapi_schema)))
        return self._bytes


class TruePage(SwaggerRenderPlugin):
    """The page, of the same document."""

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        """Return the page as HTML."""
        return super().render(request, made_true(deepcopy(openapi_schema)))


def made_true(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with what the generator leaves out or says in Python's dialect.

    It omits `additionalProperties: false` for Structs that refuse unknown fields: every request
    of ours does, and no answer carries more than it lists, but for problems.
    """
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        if schema.get("type") == "object" and not name.endswith("ProblemDocument"):
            schema.setdefault("additionalProperties", False)
    for path, operations in document.get("paths", {}).items():
        for method, operation in operations.items():
            operation["summary"] = operation["description"].partition("\n")[0].rstrip(".")
            _add_headers(method, operation)
            _add_shared_answers(operation)
            _add_repeated_answer(path, operation)
            for body in [operation.get("requestBody", {}), *operation["responses"].values()]:
                _add_example(body)
                for problem in body.get("content", {}).get(MEDIA_TYPE, {}).get("examples", {}):
                    # The generator's own key; OpenAPI knows no such member of an example.
                    body["content"][MEDIA_TYPE]["examples"][problem].pop("id", None)
    _say_patterns(document)
    return document


def _say_patterns(node: Any) -> None:
    """Write the end of a pattern as JSON Schema does: its `$` is Python's backslash Z."""
    if isinstance(node, dict):
        if isinstance(node.get("pattern"), str):
            node["pattern"] = node["pattern"].replace(r"\Z", "$")
        for value in node.values():
            _say_patterns(value)
    elif isinstance(node, list):
        for value in node:
            _say_patterns(value)


def _add_headers(method: str, operation: dict[str, Any]) -> None:
    """List the headers that guards read, which the generator cannot see."""
    schemes = {name for requirement in operation.get("security", []) for name in requirement}
    headers: list[tuple[str, bool]] = []
    if schemes & {"merchant", "gate"}:
        headers += [("Signature-Input", True), ("Content-Digest", True)]
    if "operator" in schemes and method not in {"get", "head"}:
        headers.append(("X-CSRF-Token", True))
    if StepUpRequired.code in _refusals_of(operation, StepUpRequired.status):
        headers.append(("Yuanka-Step-Up", False))
    operation.setdefault("parameters", []).extend(
        {"name": name, "in": "header", "required": is_required, "schema": {"type": "string"}}
        for name, is_required in headers
    )


def _refusals_of(operation: dict[str, Any], status: int) -> dict[str, Any]:
    """Return the examples of an operation's refusals of one status, by their code."""
    content = operation["responses"].get(str(status), {}).get("content", {})
    examples: dict[str, Any] = content.get(MEDIA_TYPE, {}).get("examples", {})
    return examples


def _add_repeated_answer(path: str, operation: dict[str, Any]) -> None:
    """Say that a write repeated with its number is answered 200 with the first answer."""
    has_key = any(one["name"] == "Idempotency-Key" for one in operation.get("parameters", []))
    made = operation["responses"].get("201")
    if made and (has_key or path.startswith("/v1/merchant/")):
        header = {"description": "`true`", "schema": {"type": "string"}}
        operation["responses"]["200"] = {
            **made,
            "description": "The same number again: the first answer",
            "headers": {"Idempotency-Replayed": header},
        }


def _add_shared_answers(operation: dict[str, Any]) -> None:
    """Say what guards, malformed requests and a busy database are answered with."""
    shared: list[type[Refusal]] = [Malformed, InProgress, Overloaded, Unavailable]
    if "requestBody" in operation:
        shared.append(TooLarge)
    for requirement in operation.get("security", []):
        for scheme in requirement:
            shared += SHARED_REFUSALS[scheme]
    if MEDIA_TYPE not in operation["responses"].get("400", {}).get("content", {}):
        # The framework describes its own validation error, which never leaves this process.
        operation["responses"].pop("400", None)
    for refusal in shared:
        answer = operation["responses"].setdefault(
            str(refusal.status),
            {
                "description": "",
                "content": {MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA}, "examples": {}}},
            },
        )
        said = f"`{refusal.code}` {refusal.title.zh}"
        answer["description"] = "; ".join(filter(None, [answer["description"], said]))
        answer["content"][MEDIA_TYPE]["examples"][refusal.code] = {
            "summary": refusal.title.zh,
            "value": example_of(refusal),
        }


def _add_example(body: dict[str, Any]) -> None:
    """Show an example of a request or an answer; problems have theirs already."""
    for media_type, content in body.get("content", {}).items():
        if media_type != MEDIA_TYPE:
            found = _example(content["schema"])
            if found is not None:
                content["example"] = found


def _example(schema: dict[str, Any]) -> Any:
    """Return the example of a schema: of its Struct, of the first choice, of a page of one."""
    if "oneOf" in schema:
        return _example(schema["oneOf"][0])
    name = schema.get("$ref", "").rpartition("/")[2]
    item = PAGE_OF.fullmatch(name)
    if item:
        return {"items": [EXAMPLES[item["item"]]], "next_cursor": None}
    return EXAMPLES[name] if name else None


def swagger_assets() -> Path:
    """Return the folder of the page's scripts and styles, inside an installed package."""
    spec = find_spec("swagger_ui")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "static"


def openapi_config(*, has_page: bool) -> OpenAPIConfig:
    """Return how the document is made; the page is for development only."""
    page = TruePage(
        js_url=f"{ASSETS_PATH}/swagger-ui-bundle.js",
        css_url=f"{ASSETS_PATH}/swagger-ui.css",
        standalone_preset_js_url=f"{ASSETS_PATH}/swagger-ui-standalone-preset.js",
        favicon="<link rel='icon' href='data:,'>",
        path="/docs",
    )
    return OpenAPIConfig(
        title="Yuanka 园卡",
        version="0.1.0",
        description=DESCRIPTION,
        path="/schema",
        use_handler_docstrings=True,
        create_examples=False,
        components=Components(security_schemes=dict(SECURITY_SCHEMES)),
        render_plugins=[TrueJson(), page] if has_page else [TrueJson()],
    )
