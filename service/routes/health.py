"""Probes, versions, workers and metrics."""

import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from prometheus_client.exposition import choose_encoder
from redis.exceptions import RedisError

from model_store.errors import ModelStoreError
from service.access.auth import Scope, require
from service.context import Services, ServicesDep
from service.errors import FieldError, NotReadyError
from service.http.openapi import problems
from service.jobs.workers import known_workers, live_workers
from service.schemas import HealthBody, VersionBody, WorkerBody, WorkersBody
from worker.contract import keys

router = APIRouter(tags=["operations"])

ReadinessParameter = Annotated[
    Literal["fleet", "process"],
    Query(
        description="`process` leaves out what all processes share, warm workers and draining: for a load "
        "balancer, which would otherwise have nobody left to send downloads"
    ),
]


@router.get("/livez", summary="The process answers")
def live() -> HealthBody:
    """Looks at nothing else, so that a broken backend does not get the process killed."""
    return HealthBody(status="ok")


@router.get("/startupz", summary="The process has started")
def started() -> HealthBody:
    """As /livez: the first answer comes when everything is set up."""
    return HealthBody(status="ok")


@router.get("/readyz", responses=problems(503), summary="Images can be made")
@router.get("/health", include_in_schema=False)
def ready(services: ServicesDep, scope: ReadinessParameter = "fleet") -> HealthBody:
    """Redis, both stores and a warm worker; 503 says what is missing."""
    left_out = _OF_THE_FLEET if scope == "process" else frozenset[str]()
    checks = {name: _reason(check, services) for name, check in _CHECKS.items() if name not in left_out}
    failed = {name: reason for name, reason in checks.items() if reason}
    if failed:
        raise NotReadyError(
            "; ".join(f"{name}: {reason}" for name, reason in failed.items()),
            errors=[FieldError(name, reason) for name, reason in failed.items()],
            retry_after_s=5,
        )
    return HealthBody(status="ok", checks=dict.fromkeys(checks, "ok"))


@router.get("/version", responses=problems(), summary="What runs here")
def get_version() -> VersionBody:
    """Of the service; each worker's torch version is in the manifest of its images."""
    return VersionBody(version=version("masan"), python=platform.python_version())


@router.get(
    "/workers", dependencies=[require(Scope.JOBS_READ)], responses=problems(), summary="All known workers"
)
def list_workers(services: ServicesDep) -> WorkersBody:
    """As they last reported."""
    now = services.clock()
    return WorkersBody(
        workers=[
            WorkerBody(
                name=worker.name,
                state=worker.state,
                live=now - worker.heartbeat < keys.WORKER_TIMEOUT_S,
                warm=worker.is_warm,
                device=worker.device,
                model=worker.model,
                version=worker.version,
                images_per_second=worker.images_per_second,
                heartbeat_age_seconds=round(max(0.0, now - worker.heartbeat), 3),
                error=worker.error,
            )
            for worker in known_workers(services.redis)
        ]
    )


@router.get("/metrics", include_in_schema=False)
def metrics(services: ServicesDep, request: Request) -> Response:
    """Prometheus text, or OpenMetrics if asked for."""
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encode(services.registry), headers={"Content-Type": content_type})


def _check_process(services: Services) -> str | None:
    return "is stopping" if services.stopping.is_set() else None


def _check_drain(services: Services) -> str | None:
    try:
        began = services.drain.since()
    except RedisError:
        return None  # the check of Redis says so
    return None if began is None else "no new jobs are accepted; POST /admin/drain ends that"


def _check_redis(services: Services) -> str | None:
    services.redis.ping()
    return None


def _check_model_store(services: Services) -> str | None:
    services.models.resolve(None)
    return None


def _check_result_store(services: Services) -> str | None:
    services.results.check_writable()
    return None


def _check_workers(services: Services) -> str | None:
    workers = live_workers(services.redis, services.clock())
    if any(worker.is_warm for worker in workers):
        return None
    if workers:
        reasons = sorted({worker.error for worker in workers if worker.error})
        return "; ".join(["no worker is warm", *reasons])
    return "no worker has reported in the last seconds; start one with `masan work`"


_CHECKS: dict[str, Callable[[Services], str | None]] = {
    "process": _check_process,
    "redis": _check_redis,
    "drain": _check_drain,
    "model_store": _check_model_store,
    "result_store": _check_result_store,
    "workers": _check_workers,
}


_OF_THE_FLEET = frozenset({"drain", "workers"})


def _reason(check: Callable[[Services], str | None], services: Services) -> str | None:
    try:
        return check(services)
    except RedisError as error:
        return f"Redis does not answer: {error}"
    except (ModelStoreError, OSError) as error:
        return str(error)
