# One image per process, from one file:
#     docker build --target service  -t masan-service .     HTTP; no torch
#     docker build --target worker   -t masan-worker .      sampling; torch with CUDA from its own wheels
#     docker build --target training -t masan-training .    learning and judging
#     docker build --target reports  -t masan-reports .     judging on request, from the queue of reports
# For machines without a GPU give pip PyTorch's CPU wheels: --build-arg PIP_EXTRA_INDEX_URL=...
# Beside what its process needs, each brings what a setting may ask for: results in a bucket (s3), spans to a
# collector (telemetry), and the service also archives in parquet. --build-arg EXTRAS=s3 brings less.

FROM python:3.12.12-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A fixed uid, so that a volume written by one image can be read by the other. The folders exist with their
# owner before a volume is mounted over them, because a new volume takes both from the image.
RUN useradd --uid 10001 --create-home --shell /usr/sbin/nologin masan \
 && install -d -o masan -g masan /var/lib/masan/models /var/lib/masan/results /var/lib/masan/keys /var/lib/masan/runs \
      /var/lib/masan/features /var/cache/masan
WORKDIR /home/masan

# Dependencies come from pyproject.toml alone, before any source is there: a change of code leaves this
# layer, with gigabytes of torch in it, as it is.
FROM base AS dependencies
ARG PIP_EXTRA_INDEX_URL=""
ENV PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./

FROM dependencies AS service-build
ARG EXTRAS=s3,telemetry,parquet
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt ".[service${EXTRAS:+,${EXTRAS}}]"
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall . \
 && python -c "import importlib.util, service.app; assert importlib.util.find_spec('torch') is None"

FROM dependencies AS worker-build
ARG EXTRAS=s3,telemetry
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt ".[worker${EXTRAS:+,${EXTRAS}}]"
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .

FROM dependencies AS training-build
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt '.[training]'
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .

FROM dependencies AS reports-build
ARG EXTRAS=s3
RUN --mount=type=cache,target=/root/.cache/pip pip install -c constraints.txt ".[worker,training${EXTRAS:+,${EXTRAS}}]"
COPY . .
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps --force-reinstall .

FROM base AS training
COPY --from=training-build /opt/venv /opt/venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 10001:10001
WORKDIR /var/lib/masan/runs
HEALTHCHECK NONE
ENTRYPOINT ["masan", "train"]
CMD ["--help"]

FROM base AS reports
COPY --from=reports-build /opt/venv /opt/venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MASAN_REPORT_CACHE=/var/lib/masan/features
USER 10001:10001
HEALTHCHECK NONE
CMD ["python", "-m", "masan.report_worker"]

FROM base AS worker
COPY --from=worker-build /opt/venv /opt/venv
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    MASAN_HOST=0.0.0.0 \
    MASAN_METRICS_PORT=9100 \
    XDG_CACHE_HOME=/var/cache/masan \
    CUDA_CACHE_PATH=/var/cache/masan/cuda
USER 10001:10001
EXPOSE 9100
HEALTHCHECK --interval=15s --timeout=5s --start-period=120s --retries=4 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"MASAN_METRICS_PORT\"]}/metrics', timeout=4)"]
CMD ["python", "-m", "worker"]

FROM base AS service
COPY --from=service-build /opt/venv /opt/venv
COPY deploy/compose/init.py /opt/masan/init.py
ENV MASAN_HOST=0.0.0.0 \
    MASAN_PORT=8000
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ[\"MASAN_PORT\"]}/livez', timeout=4)"]
CMD ["python", "-m", "service"]
