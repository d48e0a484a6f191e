"""The OpenTelemetry provider of a test process, which can be set only once, and what it has recorded."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.util.types import AttributeValue


@cache
def metering() -> InMemoryMetricReader:
    """Record what this process measures from now on; call it before a `metrics` middleware is made."""
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([reader]))
    return reader


def recorded(store: str, metric: str = "storeconf.operation.duration") -> list[Mapping[str, AttributeValue]]:
    """The attributes of each kind of call that was measured of a store, in one of its metrics."""
    data = metering().get_metrics_data()
    found: list[Mapping[str, AttributeValue]] = []
    for resource in data.resource_metrics if data is not None else ():
        for scope in resource.scope_metrics:
            for each in scope.metrics:
                for point in each.data.data_points if each.name == metric else ():
                    attributes = point.attributes or {}
                    if attributes.get("store") == store:
                        found.append(attributes)
    return found
