"""Spans reach a real OTLP/HTTP receiver: those of a request and of its job's chunks are one trace."""

import io
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service.app import create_app
from service.errors import SettingsError
from service.settings import ServiceSettings
from service.telemetry import Telemetry
from tests.integration.service.harness import Clock, Service, running
from tests.worker_stack import NO_GUARD_S
from worker.contract.messages import ChunkRequest, ModelRef
from worker.contract.tracing import TracingUnavailableError
from worker.logs import JsonFormatter
from worker.process import WorkerProcess
from worker.settings import WorkerSettings
from worker.telemetry import ChunkTracing

pytestmark = pytest.mark.integration

CALLER = "4bf92f3577b34da6a3ce929d0e0e4736"
NOWHERE = "http://127.0.0.1:9"
REQUEST = ChunkRequest(
    job_id="job_1",
    chunk_index=3,
    model=ModelRef(name="tiny", version="1", digest="a" * 64),
    class_slug="pro_b",
    class_index=1,
    start=0,
    count=4,
    seed=1,
    truncation=1,
    traceparent=f"00-{CALLER}-00f067aa0ba902b7-01",
)


@dataclass
class Collector:
    """Records what is exported to it, by the name of the service."""

    endpoint: str
    spans: dict[str, list[Span]] = field(default_factory=dict)

    def add(self, body: bytes) -> None:
        for of_resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            names = {entry.key: entry.value.string_value for entry in of_resource.resource.attributes}
            spans = self.spans.setdefault(names["service.name"], [])
            spans += [span for scope in of_resource.scope_spans for span in scope.spans]

    def named(self, service: str, name: str) -> list[Span]:
        return [span for span in self.spans.get(service, []) if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A receiver of OTLP over HTTP on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.add(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield found
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def traced(settings: ServiceSettings, service: Service, endpoint: str) -> Iterator[Service]:
    """A service that sends spans, beside the one without."""
    with running(settings.model_copy(update={"otlp_endpoint": endpoint}), Clock(), service.checkpoint) as own:
        yield own


def work(settings: ServiceSettings, endpoint: str) -> None:
    """Run a worker until the queue is empty."""
    of_worker = WorkerSettings(
        redis_url=settings.redis_url,
        model_store_url=settings.model_store_url,
        result_store_url=settings.result_store_url,
        default_model="tiny",
        device="cpu",
        threads=1,
        encode_threads=1,
        micro_batch_timeout_s=NO_GUARD_S,
        otlp_endpoint=endpoint,
    )
    assert WorkerProcess(of_worker).run(burst=True) == 0


def texts(span: Span) -> dict[str, str]:
    return {entry.key: entry.value.string_value for entry in span.attributes if entry.value.string_value}


def test_a_job_s_chunks_join_the_request_that_asked_for_it(
    settings: ServiceSettings, service: Service, collector: Collector
) -> None:
    caller = {"traceparent": f"00-{CALLER}-00f067aa0ba902b7-01"}
    with traced(settings, service, collector.endpoint) as own:
        response = own.client.post("/generate?class=pro_b&n=60", headers=caller)
        work(settings, collector.endpoint)

    (request,) = collector.named("masan-service", "POST /generate")
    chunks = collector.named("masan-worker", "chunk")
    assert response.status_code == 202
    assert request.trace_id.hex() == CALLER
    assert len(chunks) == 5  # more than the first window: a worker enqueued the others
    assert {chunk.trace_id.hex() for chunk in chunks} == {CALLER}
    assert {chunk.parent_span_id for chunk in chunks} == {request.span_id}
    assert {texts(chunk)["masan.job_id"] for chunk in chunks} == {response.json()["id"]}
    assert {texts(chunk)["masan.outcome"] for chunk in chunks} == {"done"}
    for chunk in chunks:
        assert {"sample", "encode", "write"} <= {event.name for event in chunk.events}
        for event in chunk.events:
            assert chunk.start_time_unix_nano <= event.time_unix_nano <= chunk.end_time_unix_nano


def test_probes_leave_no_spans_and_keys_stay_hidden(
    settings: ServiceSettings, service: Service, collector: Collector
) -> None:
    with traced(settings, service, collector.endpoint) as own:
        for path in ("/livez", "/readyz", "/metrics", "/jobs/mk_0123456789abcdef?key=mk_0123456789abcdef"):
            own.client.get(path)

    (span,) = collector.spans["masan-service"]
    assert span.name == "GET /jobs/{job_id}"
    assert texts(span)["url.path"] == "/jobs/mk_***"
    assert texts(span)["url.query"] == "key=mk_***"


def test_an_error_is_told_by_the_chunk_s_span(collector: Collector) -> None:
    tracing = ChunkTracing.to(collector.endpoint)
    with pytest.raises(KeyError), tracing.chunk(REQUEST) as current:
        current.add_stage("sample", 0.25)
        current.add_stage("sample", 0.25)
        assert current.trace_id == CALLER
        raise KeyError("lost")
    tracing.close()

    (span,) = collector.named("masan-worker", "chunk")
    by_name = {event.name: event for event in span.events}
    counts = {entry.key: entry.value for entry in by_name["sample"].attributes}
    assert span.status.code == Status.STATUS_CODE_ERROR
    assert {"exception", "sample"} == by_name.keys()
    assert (counts["count"].int_value, counts["seconds"].double_value) == (2, 0.5)


def test_lines_about_a_chunk_carry_its_job_and_its_trace(
    settings: ServiceSettings, service: Service, collector: Collector
) -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter())
    logger = logging.getLogger("worker")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with traced(settings, service, collector.endpoint) as own:
            job_id = own.submit(n=4)["id"]
            work(settings, collector.endpoint)
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)

    (request,) = collector.named("masan-service", "POST /generate")
    rows = [json.loads(line) for line in lines.getvalue().splitlines()]
    (ended,) = [row for row in rows if row["message"] == "chunk ended"]
    assert ended["job_id"] == job_id
    assert ended["trace_id"] == request.trace_id.hex()


def test_a_collector_that_is_away_holds_nothing_up(settings: ServiceSettings, service: Service) -> None:
    with traced(settings, service, NOWHERE) as own:
        job_id = own.submit(n=2)["id"]
        work(settings, NOWHERE)
        status = own.client.get(f"/jobs/{job_id}").json()["status"]
        stopping = time.monotonic()

    assert status == "succeeded"
    assert time.monotonic() - stopping < 8


def test_without_an_endpoint_nothing_is_imported() -> None:
    code = f"""
import sys
from worker.contract.messages import ChunkRequest
from worker.telemetry import ChunkTracing
with ChunkTracing.to(None).chunk(ChunkRequest.model_validate_json({REQUEST.model_dump_json()!r})):
    pass
assert not any(name.startswith("opentelemetry") for name in sys.modules)
import service.app
assert not any(name.startswith(("opentelemetry.sdk.trace", "opentelemetry.exporter")) for name in sys.modules)
"""
    # redis-py imports the metrics of an SDK that is installed.
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_endpoint_without_the_packages_is_refused_in_words(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)

    with pytest.raises(SettingsError, match=r"OTEL_EXPORTER_OTLP_ENDPOINT .*masan\[telemetry\]"):
        create_app(settings.model_copy(update={"otlp_endpoint": NOWHERE}))
    with pytest.raises(TracingUnavailableError):
        ChunkTracing.to(NOWHERE)


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "MASAN_OTLP_ENDPOINT"])
def test_the_standard_variable_and_ours_name_the_collector(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, "http://127.0.0.1:4318")
    read = [kind(model_store_url="m", result_store_url="r") for kind in (ServiceSettings, WorkerSettings)]

    assert [settings.otlp_endpoint for settings in read] == ["http://127.0.0.1:4318"] * 2
    assert Telemetry(None).config["tracing"] is False
