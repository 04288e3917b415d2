"""Prometheus families of what was served of late, as the process that judges it wrote it into Redis."""

import json
from collections.abc import Collection, Iterator
from typing import cast

from prometheus_client.core import GaugeMetricFamily, Metric
from redis import Redis

from worker.contract import keys

_LABELS = ["class", "model_version"]


def served_families(redis: Redis, served: Collection[tuple[str, str]], now: float) -> Iterator[Metric]:
    """served: (class, `name@version`) of what has an alias; rows of other checkpoints are not shown.

    now: epoch seconds. Raises RedisError.
    """
    kid = GaugeMetricFamily(
        "masan_class_served_kid",
        "Kernel distance of the newest served images to the real class",
        labels=_LABELS,
    )
    spread = GaugeMetricFamily(
        "masan_class_served_kid_sd", "Its spread over random subsets of 100", labels=_LABELS
    )
    age = GaugeMetricFamily(
        "masan_class_served_age_seconds", "Seconds since it was last looked at", labels=_LABELS
    )
    rows = cast("dict[str, str]", redis.hgetall(keys.SERVED_QUALITY))
    for field, text in sorted(rows.items()):
        slug, _, reference = field.partition(":")
        if (slug, reference) not in served:
            continue
        row = json.loads(text)
        for family, value in ((kid, row["kid"]), (spread, row["kid_sd"]), (age, now - row["at"])):
            family.add_metric([slug, reference], value)
    yield from (kid, spread, age)
