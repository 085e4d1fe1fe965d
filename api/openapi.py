"""OpenAPI: what the framework writes, made true, and the page that shows it without a CDN."""

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
from api.problems import MEDIA_TYPE, Malformed
from identity.kernel import Refusal
from identity.staff.operators import CsrfRefused, SessionRequired
from identity.tokens import TokenRefused

PROBLEM_SCHEMA = "#/components/schemas/ProblemDocument"

SHARED_REFUSALS: dict[str, list[type[Refusal]]] = {
    "citizen": [TokenRefused],
    "merchant": [SignatureInvalid, SignatureMalformed, ClockSkew],
    "gate": [SignatureInvalid, SignatureMalformed, ClockSkew],
    "operator": [SessionRequired, CsrfRefused],
}
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

    def render(self, request: Any, openapi_schema: dict[str, Any]) -> bytes:
        """Return the document as JSON."""
        return super().render(request, made_true(openapi_schema))


def made_true(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with closed objects, and with the answers that every audience shares.

    The generator omits `additionalProperties: false` for Structs that refuse unknown fields:
    every request of ours does, and no answer carries more than it lists, but for problems.
    """
    for name, schema in document.get("components", {}).get("schemas", {}).items():
        if schema.get("type") == "object" and not name.endswith("ProblemDocument"):
            schema.setdefault("additionalProperties", False)
    for path, operations in document.get("paths", {}).items():
        for operation in operations.values():
            _add_shared_answers(operation)
            _add_repeated_answer(path, operation)
    return document


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
    """Say what the guard of an audience, and malformed requests, are answered with."""
    shared: list[type[Refusal]] = [Malformed]
    for requirement in operation.get("security", []):
        for scheme in requirement:
            shared += SHARED_REFUSALS[scheme]
    for refusal in shared:
        answer = operation["responses"].setdefault(
            str(refusal.status),
            {"description": "", "content": {MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA}}}},
        )
        said = f"`{refusal.code}` {refusal.title.zh}"
        answer["description"] = "; ".join(filter(None, [answer["description"], said]))
        # The framework describes its own validation error, which never leaves this process.
        answer["content"] = {MEDIA_TYPE: {"schema": {"$ref": PROBLEM_SCHEMA}}}


def swagger_assets() -> Path:
    """Return the folder of the page's scripts and styles, inside an installed package."""
    spec = find_spec("swagger_ui")
    assert spec
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "static"


def openapi_config(*, has_page: bool) -> OpenAPIConfig:
    """Return how the document is made; the page is for development only."""
    page = SwaggerRenderPlugin(
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
