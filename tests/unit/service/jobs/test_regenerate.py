"""The request told for images that are gone asks for the very same ones."""

from urllib.parse import parse_qsl, urlsplit

from model_store.image_id import Walk
from service.jobs.record import JobRecord
from service.jobs.regenerate import regenerate_hint, regenerate_link
from worker.contract.messages import ClassCount, GateLevel, ImageEncoding, JobSpec, JobStatus, ModelRef

PRO_B = ClassCount(class_slug="pro_b", class_index=3, count=7)
SPEC = JobSpec(
    job_id="job_01KAQ3V5T8X2M4N6P8R0S2T4V6",
    model=ModelRef(name="b-all", version="2", digest="ab" * 32),
    parts=(PRO_B,),
    seed=2**64 - 1,
    gate=GateLevel.DEFAULT,
    chunk_images=4,
)
ASKED = {"class": "pro_b", "n": "7", "seed": str(2**64 - 1), "truncation": "1", "model": "b-all@2"}


def job_of(spec: JobSpec) -> JobRecord:
    return JobRecord(
        spec=spec,
        status=JobStatus.EXPIRED,
        done=0,
        rejected=0,
        next_chunk=0,
        created_at=0.0,
        expires_at=1.0,
        started_at=None,
        finished_at=1.0,
        deadline=None,
        attempt=1,
        error=None,
    )


def linked(spec: JobSpec) -> dict[str, str]:
    """The parameters of the link's request."""
    target, relation = regenerate_link(job_of(spec))["Link"].split("; ")
    assert relation == 'rel="regenerate"'
    return dict(parse_qsl(urlsplit(target.strip("<>")).query, strict_parsing=True))


def test_defaults_are_left_out() -> None:
    assert linked(SPEC) == ASKED


def test_all_that_decides_an_image_or_its_file_is_said() -> None:
    chosen = SPEC.model_copy(
        update={
            "truncation": 0.7,
            "walk": Walk(5, 7),
            "format": "tar",
            "encoding": ImageEncoding(format="jpeg", quality=90),
            "gate": GateLevel.OFF,
        }
    )

    assert linked(chosen) == ASKED | {
        "truncation": "0.7",
        "walk_to_seed": "5",
        "format": "tar",
        "image_format": "jpeg",
        "quality": "90",
        "gate": "off",
    }


def test_a_mix_is_told_as_the_body_it_came_in() -> None:
    mixed = SPEC.model_copy(
        update={"parts": (PRO_B, ClassCount(class_slug="benign", class_index=0, count=2))}
    )

    assert regenerate_hint(job_of(mixed)).endswith('with the body {"mix": {"pro_b": 7, "benign": 2}}.')
    assert not {"class", "n"} & linked(mixed).keys()
