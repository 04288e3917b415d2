"""Job ids sort by time and are not guessable."""

from service.ids import JOB_ID_PATTERN, new_job_id


def test_ids_sort_by_time() -> None:
    times = [1.0, 1_700_000_000.001, 1_700_000_000.002, 2_000_000_000.0]

    made = [new_job_id(now) for now in times]

    assert made == sorted(made)


def test_ids_of_one_moment_differ() -> None:
    made = {new_job_id(1_700_000_000.0) for _ in range(1_000)}

    assert len(made) == 1_000
    assert all(JOB_ID_PATTERN.match(job_id) for job_id in made)


def test_time_is_the_one_that_the_specification_gives() -> None:
    assert new_job_id(1_469_918_176.385).startswith("job_01ARYZ6S41")
