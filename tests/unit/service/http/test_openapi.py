"""The document in docs/ is the one the application gives, and promises what all routes keep."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from service.app import create_app
from service.http.openapi import render
from service.settings import ServiceSettings

FILE = Path(__file__).parents[4] / "docs" / "openapi.json"


@pytest.fixture
def app(tmp_path: Path) -> FastAPI:
    return create_app(
        ServiceSettings(model_store_url=str(tmp_path), result_store_url=str(tmp_path), api_keys_file=None)
    )


def operations(app: FastAPI) -> dict[str, dict[str, Any]]:
    return {
        f"{method.upper()} {path}": operation
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }


def test_file_is_what_the_application_says(app: FastAPI) -> None:
    assert FILE.read_text() == render(app), "python -m service --openapi > docs/openapi.json"


def test_every_operation_is_described(app: FastAPI) -> None:
    lacking = [name for name, item in operations(app).items() if not {"summary", "tags"} <= item.keys()]

    assert lacking == []


def test_every_error_answer_is_a_problem(app: FastAPI) -> None:
    wrong = [
        (name, status)
        for name, item in operations(app).items()
        for status, answer in item["responses"].items()
        if int(status) >= 400 and list(answer["content"]) != ["application/problem+json"]
    ]

    assert wrong == []


def test_all_references_lead_somewhere(app: FastAPI) -> None:
    document = app.openapi()
    names = document["components"]["schemas"]
    text = json.dumps(document)

    used = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert used - names.keys() == set()


def test_two_applications_do_not_share_metrics(tmp_path: Path) -> None:
    settings = ServiceSettings(model_store_url=str(tmp_path), result_store_url=str(tmp_path))

    first, second = create_app(settings), create_app(settings)

    assert first.state.services.registry is not second.state.services.registry
