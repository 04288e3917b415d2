"""The application: routes, error handlers and background work meet here only."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from redis.exceptions import RedisError

from service.access.auth import PUBLIC_PATHS, authenticate, check_binding
from service.context import Services
from service.http.openapi import install_openapi
from service.http.parameters import check_parameters
from service.http.problems import install_error_handlers
from service.jobs.generate_options import GenerateOptions
from service.routes import (
    admin,
    aliases,
    certificates,
    events,
    generate,
    health,
    images,
    job_images,
    jobs,
    model_report,
    models,
    pages,
    reports,
    results,
    verify,
)
from service.settings import ServiceSettings
from service.telemetry import Telemetry
from service.transport.direct_paths import DirectPaths
from service.transport.head import HeadMiddleware
from service.transport.limits import LimitsMiddleware
from service.transport.middleware import RequestMiddleware

logger = logging.getLogger(__name__)

_DESCRIPTION = """\
Labelled, traceable synthetic blood-smear images. `POST /generate?class=pro_b&n=500` accepts a job; follow its
`Location`; download `/jobs/{id}/result`. Errors are problem documents (RFC 9457) with a stable `code`.
"""


def create_app(settings: ServiceSettings, *, clock: Callable[[], float] = time.time) -> FastAPI:
    """A service on `settings`; connects to nothing before the first request. clock: epoch seconds.

    Raises SettingsError.
    """
    telemetry = Telemetry(settings.otlp_endpoint, without_spans=PUBLIC_PATHS)
    services = Services.build(settings, clock)
    check_binding(settings, services.key_ring)
    app = FastAPI(
        title="MASAN",
        version=version("masan"),
        description=_DESCRIPTION,
        lifespan=_lifespan,
        dependencies=[Depends(authenticate), Depends(check_parameters)],
        docs_url=None,  # ours, which needs no other machine
        redoc_url=None,
        redirect_slashes=False,  # a path with one slash more is another path, and its answer a problem
        telemetry=telemetry.config,
    )
    app.state.services = services
    app.state.telemetry = telemetry
    for module in (
        generate,
        jobs,
        events,
        results,
        job_images,
        images,
        certificates,
        verify,
        models,
        aliases,
        model_report,
        reports,
        admin,
        health,
    ):
        app.include_router(module.router)
    pages.install_pages(app)
    install_error_handlers(app)
    install_openapi(app, GenerateOptions)
    if settings.otlp_endpoint is None:  # else FastAPI's routing tells the span which route it was
        app.add_middleware(DirectPaths, application=app)
    app.add_middleware(HeadMiddleware)
    app.add_middleware(LimitsMiddleware, max_concurrent=settings.max_concurrent_requests)
    app.add_middleware(RequestMiddleware, metrics=services.metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    services: Services = app.state.services
    # FastAPI builds routes and document when they are first asked for; two threads at once may fail at that.
    app.openapi()
    reaping = asyncio.create_task(_reap(services))
    try:
        yield
    finally:
        reaping.cancel()
        with suppress(asyncio.CancelledError):
            await reaping
        await services.events.aclose()
        await services.commands.aclose()
        services.close()
        await run_in_threadpool(app.state.telemetry.close)


async def _reap(services: Services) -> None:
    """Run the reaper until canceled; a backend that is away is tried again."""
    while True:
        try:
            await run_in_threadpool(services.reaper.run_once, services.clock())
        except (RedisError, OSError) as error:
            logger.warning("reaper could not work", extra={"reason": str(error)})
        except Exception:
            logger.exception("reaper failed")
        await asyncio.sleep(services.settings.reaper_interval_s)
