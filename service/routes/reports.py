"""How good a checkpoint's images are, per class: its report, and asking for a new one."""

from typing import Annotated

from fastapi import APIRouter, Query, Response, status

from model_store.report import ExtractorReport
from service.access.auth import Scope, require
from service.context import ServicesDep
from service.errors import FieldError, NotFoundError, UnknownClassError
from service.http.openapi import problems
from service.http.parameters import ModelParameter, ReportCountParameter, ReportIdParameter
from service.schemas import ClassReportBody, ExtractorReportBody, FidReportBody, ReportJobBody

router = APIRouter(prefix="/reports", tags=["models"], dependencies=[require(Scope.MODELS_READ)])

REPORT_RETRY_AFTER_S = 5


@router.get("/fid", responses=problems(404), summary="Per-class distances to the real images")
def get_fid(
    services: ServicesDep,
    class_slug: Annotated[str | None, Query(alias="class", description="Only this class")] = None,
    model: ModelParameter = None,
) -> FidReportBody:
    """The primary extractor's figures, those of the other judges beside them.

    `fid` is null unless the extractor is Inception: a Frechet distance in other features is not FID.
    """
    checkpoint = services.models.resolve(model)
    report = services.models.report(checkpoint)
    reference = checkpoint.manifest.reference
    if report is None:
        raise NotFoundError(f"{reference} has no quality report; ask for one with POST /reports.")
    known = list(report.primary.classes)
    if class_slug is not None and class_slug not in known:
        reason = f"unknown class {class_slug[:100]!r}"
        raise UnknownClassError(
            f"The report of {reference} has no class {class_slug[:100]!r}; it has {', '.join(known)}.",
            errors=[FieldError("class", reason, known)],
        )
    wanted = set(known) if class_slug is None else {class_slug}
    return FidReportBody(
        model=reference,
        digest=f"sha256:{report.digest}",
        created_at=report.created_at,
        truncation=report.truncation,
        utility=report.utility,
        deduplicated=report.deduplicated,
        notes=report.notes,
        judges=[_extractor_body(judge, wanted) for judge in report.judges],
        checks={slug: checks for slug, checks in report.checks.items() if slug in wanted},
        **dict(_extractor_body(report.primary, wanted)),
    )


@router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses={
        202: {
            "description": "Accepted, or under way already; follow `Location`",
            "headers": {
                "Location": {"description": "The report's record", "schema": {"type": "string"}},
                "Retry-After": {
                    "description": "Look again after so many seconds",
                    "schema": {"type": "integer"},
                },
            },
        },
        **problems(404, 409),
    },
    dependencies=[require(Scope.MODELS_PROMOTE)],
    summary="Ask for a new report of a checkpoint",
)
def create_report(
    services: ServicesDep, response: Response, model: ModelParameter = None, n: ReportCountParameter = 500
) -> ReportJobBody:
    """Judge a checkpoint on `n` generated images of each class; the report becomes its newest.

    While one of the same checkpoint and `n` is under way, the answer is that one.
    """
    checkpoint = services.models.resolve(model)
    record = services.reports.submit(checkpoint, n, services.clock())
    body = ReportJobBody.of(record)
    response.headers["Location"] = body.links.self
    response.headers["Retry-After"] = str(REPORT_RETRY_AFTER_S)
    response.headers["Cache-Control"] = "no-store"
    return body


@router.get("/{report_id}", responses=problems(404), summary="How far a report is")
def get_report_job(services: ServicesDep, response: Response, report_id: ReportIdParameter) -> ReportJobBody:
    """Its state, what its worker is at and, once it failed, why."""
    record = services.reports.get(report_id)
    if not record.status.is_final:
        response.headers["Retry-After"] = str(REPORT_RETRY_AFTER_S)
    response.headers["Cache-Control"] = "no-store"
    return ReportJobBody.of(record)


def _extractor_body(report: ExtractorReport, wanted: set[str]) -> ExtractorReportBody:
    reason = None if report.is_inception else f"{report.extractor} is not FID's Inception network"
    classes = {
        slug: ClassReportBody(
            fid=figures.frechet_distance if report.is_inception else None,
            fid_reason=reason,
            **dict(figures),
        )
        for slug, figures in report.classes.items()
        if slug in wanted
    }
    return ExtractorReportBody(
        extractor=report.extractor,
        extractor_sha256=report.extractor_sha256,
        preprocessing=report.preprocessing,
        reference_digest=report.reference_digest,
        n_real=report.n_real,
        n_fake=report.n_fake,
        mean=report.mean,
        classes=classes,
    )
