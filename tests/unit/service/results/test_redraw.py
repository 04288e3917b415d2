"""Which chunk of a job holds an image; drawing one again is tested with a real worker."""

from model_store.image_id import ImageId
from service.results.redraw import chunk_of
from worker.contract.messages import ClassCount, JobSpec, ModelRef

DIGEST = "ab" * 32
SPEC = JobSpec(
    job_id="job_1",
    model=ModelRef(name="tiny", version="1", digest=DIGEST),
    parts=(
        ClassCount(class_slug="pro_b", class_index=1, count=11),
        ClassCount(class_slug="benign", class_index=0, count=3, start=100),
    ),
    seed=7,
    truncation=0.7,
    chunk_images=4,
)


def test_every_image_of_a_job_is_found_in_its_chunk() -> None:
    for chunk in SPEC.chunks():
        for index in range(chunk.start, chunk.start + chunk.count):
            image_id = ImageId(DIGEST[:16], chunk.class_slug, 7, index, truncation=0.7)

            assert chunk_of(SPEC, image_id) == chunk.chunk_index


def test_other_images_are_in_none() -> None:
    for image_id in (
        ImageId(DIGEST[:16], "pro_b", 7, 11, truncation=0.7),
        ImageId(DIGEST[:16], "benign", 7, 99, truncation=0.7),
        ImageId(DIGEST[:16], "benign", 7, 0, truncation=0.7),
        ImageId(DIGEST[:16], "pre_b", 7, 0, truncation=0.7),
        ImageId(DIGEST[:16], "pro_b", 8, 0, truncation=0.7),
        ImageId(DIGEST[:16], "pro_b", 7, 0, truncation=0.6999),
        ImageId("0" * 16, "pro_b", 7, 0, truncation=0.7),
    ):
        assert chunk_of(SPEC, image_id) is None
