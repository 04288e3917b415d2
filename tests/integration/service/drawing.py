"""A real worker that draws while a request waits for it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import httpx
from redis import Redis

from tests.integration.service.harness import Service
from tests.worker_stack import NO_GUARD_S
from worker.contract.chunk_queue import open_queue
from worker.process import WorkerProcess
from worker.settings import WorkerSettings

_T = TypeVar("_T")


def draw(service: Service) -> None:
    """Run a worker until the queue is empty."""
    settings = WorkerSettings(
        redis_url=service.settings.redis_url,
        model_store_url=service.settings.model_store_url,
        result_store_url=service.settings.result_store_url,
        default_model="tiny",
        device="cpu",
        threads=1,
        encode_threads=1,
        micro_batch_timeout_s=NO_GUARD_S,
    )
    assert WorkerProcess(settings).run(burst=True) == 0


def answered(service: Service, ask: Callable[[], httpx.Response]) -> httpx.Response:
    """The answer to `ask`, while a worker draws what it puts into the queue."""
    return working_meanwhile(service, ask)


def working_meanwhile(service: Service, ask: Callable[[], _T]) -> _T:
    """What `ask` returns, while a worker draws what comes into the queue."""
    with ThreadPoolExecutor(1) as pool, Redis.from_url(service.settings.redis_url) as redis:
        queue = open_queue(redis)
        answer = pool.submit(ask)
        while not answer.done():
            if queue.count:
                draw(service)
            wait([answer], timeout=0.02)
    return answer.result()


def drawn_job(service: Service, **parameters: str | int | float) -> str:
    """Id of a job whose images a worker drew."""
    job_id = str(service.submit(**parameters)["id"])
    draw(service)
    assert service.client.get(f"/jobs/{job_id}").json()["status"] == "succeeded"
    return job_id
