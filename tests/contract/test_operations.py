"""Every documented operation keeps its contract, whatever it is sent (schemathesis)."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.contract.conftest import Known
from tests.documented import document

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]
EXAMPLES_PER_OPERATION = 8

Case = schemathesis.Case[Any]
schema = schemathesis.openapi.from_dict(document())


@pytest.mark.xdist_group("simulators")
# The framework forgets the files of a form whose texts it cannot decode; they are closed later.
@pytest.mark.filterwarnings("ignore:Exception ignored in.*SpooledTemporaryFile")
@pytest.mark.filterwarnings("ignore:Unclosed file")
@schema.parametrize()
@settings(
    max_examples=EXAMPLES_PER_OPERATION,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_an_operation_answers_as_documented(case: Case, known: Known) -> None:
    # Made-up ids lead nowhere, so every other example is about things that are there.
    if next(known.turns) % 2:
        aim(case, known)
    auth = known.auth_for(case.method, case.path)
    case.call_and_validate(base_url=known.url, auth=auth, checks=CHECKS, timeout=20)


def aim(case: Case, known: Known) -> None:
    """Put ids and codes of things that exist where the example has made-up ones."""
    for name in case.path_parameters or {}:
        if name in known.ids:
            case.path_parameters[name] = known.ids[name]
    _aim(case.body, known)


def _aim(body: Any, known: Known) -> None:
    for name, value in body.items() if isinstance(body, dict) else ():
        if name in known.ids and isinstance(value, str):
            body[name] = known.ids[name]
        else:
            _aim(value, known)
