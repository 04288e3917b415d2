"""One line that tells a user what to do."""

import pytest

from masan.errors import ApiError, JobFailedError, StackInUseError


def test_a_problem_names_field_reason_and_what_is_allowed() -> None:
    problem = {
        "title": "Invalid parameter",
        "detail": "class: unknown class 'x'.",
        "errors": [{"name": "class", "reason": "unknown class 'x'", "allowed": ["pre_b", "pro_b"]}],
    }

    assert str(ApiError(422, problem)) == "class: unknown class 'x' (class may be: pre_b, pro_b)"


def test_what_the_detail_says_already_is_not_repeated() -> None:
    errors = [{"name": "class", "reason": "unknown", "allowed": ["pre_b", "pro_b"]}]

    error = ApiError(422, {"detail": "no class 'x'; there is pre_b, pro_b", "errors": errors})

    assert str(error) == "no class 'x'; there is pre_b, pro_b"


@pytest.mark.parametrize(("status", "exit_code"), [(422, 2), (404, 2), (401, 1), (503, 1), (500, 1)])
def test_bad_input_and_failure_have_their_exit_codes(status: int, exit_code: int) -> None:
    assert ApiError(status, {"title": "no"}).exit_code == exit_code


def test_a_failed_job_says_why() -> None:
    error = JobFailedError("job_1", "failed", {"code": "weights_corrupted", "message": "sha256 differs"})

    assert str(error) == "job job_1 failed: sha256 differs"


def test_a_used_folder_says_by_whom_and_where() -> None:
    assert str(StackInUseError("/d", 12, "http://127.0.0.1:8000")) == (
        "/d is in use by process 12 at http://127.0.0.1:8000"
    )
