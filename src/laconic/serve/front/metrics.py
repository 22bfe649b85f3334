"""Counters and clocks for Prometheus. Labels come from the configuration and from routes, never from a request's text."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from laconic.serve.front.contexts import Contexts
from laconic.serve.front.scheduler import Scheduler
from laconic.version import __version__

SECONDS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
COUNTED = {
    "laconic_prompt_tokens": ("prompt_tokens", "Tokens of original prompts."),
    "laconic_prompt_tokens_cached": ("cached_tokens", "Prompt tokens that stored contexts saved."),
    "laconic_cache_write_tokens": ("cache_write_tokens", "Prompt tokens that were compressed and stored."),
    "laconic_generation_tokens": ("completion_tokens", "Tokens that were decoded."),
}
TIMED = {
    "laconic_queue_seconds": ("queue", "In the queue."),
    "laconic_prefill_seconds": ("prefill", "From the start of a batch to its first tokens."),
    "laconic_compress_seconds": ("compress", "The methods' share of reading."),
}


class Metrics:
    """All figures of one server.

    Args:
        schedulers, contexts: what they hold now is read when somebody asks.
    """

    def __init__(self, schedulers: Mapping[str, Scheduler], contexts: Contexts):
        self._registry = CollectorRegistry()
        labels = ["model"]
        self._requests = self._counter("laconic_http_requests", "Requests.", ["route", "code"])
        self._rejections = self._counter("laconic_rejections", "Requests that were refused.", ["reason"])
        self._cancellations = self._counter("laconic_cancellations", "Answers that were cut short.", ["reason"])
        self._counters = {field: self._counter(name, text, labels) for name, (field, text) in COUNTED.items()}
        self._clocks = {
            field: Histogram(name, text, labels, buckets=SECONDS, registry=self._registry)
            for name, (field, text) in TIMED.items()
        }
        self._batch = Histogram(
            "laconic_batch_size", "Rows decoded together.", labels, buckets=(1, 2, 4, 8, 16), registry=self._registry
        )
        self._token = Histogram(
            "laconic_time_per_output_token_seconds", "Between two tokens.", labels, buckets=SECONDS, registry=self._registry
        )
        self._registry.register(_Now(schedulers, contexts))

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(name, text, labels, registry=self._registry)

    def count(self, record: Mapping[str, Any]) -> None:
        """A request has ended; the record is that of the log."""
        status = record["status"]
        self._requests.labels(record["route"], str(status)).inc()
        if status >= 400 and status != 499 and "code" in record:
            self._rejections.labels(record["code"]).inc()
        if status == 499 or record.get("code") in ("slow_reader", "deadline_exceeded"):
            self._cancellations.labels(record.get("code", "client_left")).inc()
        model = record.get("model")
        if model is None:
            return
        for field, counter in self._counters.items():
            counter.labels(model).inc(record.get(field) or 0)
        if "batch" not in record:
            return
        for field, clock in self._clocks.items():
            clock.labels(model).observe(record[field])
        self._batch.labels(model).observe(record["batch"])
        if record["completion_tokens"] > 1:
            self._token.labels(model).observe(record["decode"] / (record["completion_tokens"] - 1))

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        return generate_latest(self._registry)


class _Now:
    """What the queues and the workers are now."""

    def __init__(self, schedulers: Mapping[str, Scheduler], contexts: Contexts):
        self._schedulers, self._contexts = schedulers, contexts

    def collect(self) -> Iterator[Metric]:
        shown: dict[str, tuple[str, Callable[[Scheduler], float]]] = {
            "laconic_requests_running": ("Requests that are being answered.", lambda s: len(s.running)),
            "laconic_requests_waiting": ("Requests in the queue.", lambda s: len(s.waiting)),
            "laconic_builds_waiting": ("Contexts that wait to be made.", lambda s: len(s.builds)),
            "laconic_worker_up": ("Whether the worker takes requests.", lambda s: s.backend.status == "ready"),
            "laconic_worker_restarts": ("Restarts of the worker.", lambda s: s.backend.restarts),
        }
        for name, (text, value) in shown.items():
            family = GaugeMetricFamily(name, text, labels=["model"])
            for model, scheduler in self._schedulers.items():
                family.add_metric([model], float(value(scheduler)))
            yield family
        yield from self._stored()
        info = GaugeMetricFamily("laconic_build_info", "The version.", labels=["version"])
        info.add_metric([__version__], 1.0)
        yield info

    def _stored(self) -> Iterator[Metric]:
        contexts = GaugeMetricFamily("laconic_contexts", "Contexts.", labels=["status"])
        size = GaugeMetricFamily("laconic_store_bytes", "Bytes of contexts on disk.", labels=["kind"])
        records = list(self._contexts.records)
        for status in ("queued", "running", "ready", "failed"):
            contexts.add_metric([status], float(sum(record.status == status for record in records)))
        for kind, pinned in (("pinned", True), ("other", False)):
            held = sum(record.bytes.get("file", 0) for record in records if record.pinned == pinned)
            size.add_metric([kind], float(held))
        yield contexts
        yield size
        yield CounterMetricFamily("laconic_context_hits", "Requests that asked a stored context.", self._contexts.hits)
