"""The running service against its own OpenAPI document: schemathesis with all its checks, over real HTTP.

Whatever is sent, an answer is one that the document knows, an error is a problem document, and none is a 500.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from schemathesis import APIOperation, GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.result import Ok

from model_store.store import Checkpoint
from service.app import create_app
from service.http.problems import MEDIA_TYPE
from service.settings import ServiceSettings
from tests.integration.service.harness import Clock, Service, running

pytestmark = pytest.mark.integration

_EXAMPLES = 12
_REFUSED = [400, 401, 403, 404, 405, 406, 409, 410, 412, 413, 415, 416, 422, 429]
_UNABLE = [503, 507]
"""Answers of a service that is well: nobody to do it, or no room."""
_CHECKS = {
    # What no schema can say is refused too: an `If-Match` of another version, a cursor that nobody gave,
    # parameters that exclude each other. A malformed request (400, 405, 413, 415) never is one of these.
    "positive_data_acceptance": {
        "expected-statuses": ["2xx", "3xx", *sorted({*_REFUSED, *_UNABLE} - {400, 405, 413, 415})]
    },
    "negative_data_rejection": {"expected-statuses": [*_REFUSED, *_UNABLE]},
    "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", *_UNABLE]},
}
_KEY = {"Authorization": "Bearer a-key-for-this-test"}
_KNOWN = {"class": "pro_b", "model": "tiny@1", "version": "1", "name": "tiny"}
"""Values that no schema can list, because they depend on the checkpoints there are."""


def _operations() -> dict[str, "APIOperation[Any, Any, Any, Any]"]:
    """What the service's document describes, by `METHOD /path`; nothing is asked of any service yet."""
    unused = str(Path("unused"))
    app = create_app(ServiceSettings(model_store_url=unused, result_store_url=unused))
    config = SchemathesisConfig.from_dict({"checks": _CHECKS})
    schema = schemathesis.openapi.from_dict(app.openapi(), config=config)
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    return {operation.label: operation for operation in found}


_OPERATIONS = _operations()
_TAKING = [label for label, operation in _OPERATIONS.items() if operation.query or operation.body]


@pytest.fixture(scope="module")
def module_service(settings: ServiceSettings, checkpoint: Checkpoint) -> Iterator[Service]:
    """One that asks for a key."""
    keyed = settings.model_copy(update={"api_key": SecretStr(_KEY["Authorization"].split()[1])})
    with running(keyed, Clock(), checkpoint) as service:
        service.client.headers.update(_KEY)
        yield service


@pytest.mark.parametrize("label", _OPERATIONS)
def test_a_right_request_is_answered_as_documented(service: Service, label: str) -> None:
    """Any values that the document allows."""
    operation = _OPERATIONS[label]
    known = {item.name: _KNOWN[item.name] for item in operation.query if item.name in _KNOWN}
    path = {item.name: _value(service, item.name) for item in operation.path_parameters}
    _ask(service, operation, GenerationMode.POSITIVE, query=known or None, path_parameters=path or None)


@pytest.mark.parametrize("label", _TAKING)
def test_a_wrong_request_is_refused_as_documented(service: Service, label: str) -> None:
    """Values, types and parameters that the document does not allow."""
    _ask(service, _OPERATIONS[label], GenerationMode.NEGATIVE)


def _value(service: Service, name: str) -> str | int:
    if name == "job_id":
        return service.finished_job()
    return _KNOWN.get(name, 0)


def _ask(
    service: Service, operation: "APIOperation[Any, Any, Any, Any]", mode: GenerationMode, **given_values: Any
) -> None:
    fixed = {place: values for place, values in given_values.items() if values is not None}

    @given(data=st.data())
    @settings(
        max_examples=_EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(data: st.DataObject) -> None:
        case = data.draw(operation.as_strategy(generation_mode=mode, **fixed))
        response = case.call_and_validate(base_url=str(service.client.base_url), headers=_KEY)
        if response.status_code >= 400:
            assert response.headers["content-type"] == [MEDIA_TYPE]
            problem = response.json()
            assert problem["status"] == response.status_code
            assert problem["code"] != "internal"
            if response.status_code == 422:
                assert problem["errors"]
                assert all(error["reason"] for error in problem["errors"])

    ask()
