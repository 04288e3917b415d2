"""Every error has one code, and every code a line for those who meet it."""

import re
from pathlib import Path

from service import errors
from service.errors import RequestError, request_errors
from service.http.problems import problem_response

PAGE = Path(__file__).parents[3] / "docs" / "errors.md"


def test_each_code_belongs_to_one_error() -> None:
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    with_code = [item for item in classes if issubclass(item, RequestError) and "code" in vars(item)]

    assert len(request_errors()) == len(with_code) > 20


def test_every_code_is_explained_with_its_status() -> None:
    page = PAGE.read_text()

    missing = [
        code
        for code, error in request_errors().items()
        if not re.search(rf"^\| `{code}` \| {error.status} \|", page, re.MULTILINE)
    ]

    assert missing == []


def test_docstring_draws_the_whole_tree() -> None:
    absent = [
        error
        for error in request_errors().values()
        if not re.search(
            rf"── {error.__name__} +{error.status} {error.code}$", errors.__doc__ or "", re.MULTILINE
        )
    ]

    assert absent == []


def test_every_error_renders_as_a_problem() -> None:
    for error in request_errors().values():
        response = problem_response(error("what happened", retry_after_s=3), "/here")

        assert response.status_code == error.status
        assert response.media_type == "application/problem+json"
        assert response.headers["retry-after"] == "3"
