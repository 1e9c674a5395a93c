"""What a replica counts, for Prometheus; the names are vLLM's behind another prefix."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

PREFIX = "heteroserve_engine"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Metrics:
    """Counters of one replica."""

    def __init__(self, model: str, engine: str, inside: Callable[[], float]) -> None:
        self.registry = CollectorRegistry()
        labels = {"model_name": model, "engine": engine}

        def counter(name: str, text: str, *more: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", text, (*labels, *more), registry=self.registry)

        def histogram(name: str, text: str) -> Histogram:
            made = Histogram(f"{PREFIX}_{name}", text, tuple(labels), buckets=SECONDS, registry=self.registry)
            return made.labels(**labels)

        self._labels = labels
        held = Gauge(
            f"{PREFIX}_num_requests", "Answers that are computed or wait", tuple(labels), registry=self.registry
        )
        held.labels(**labels).set_function(inside)
        self.prompt = counter("prompt_tokens", "Tokens of prompts").labels(**labels)
        self.generated = counter("generation_tokens", "Tokens of answers").labels(**labels)
        self._ended = counter("request_success", "Answers that were given whole", "finished_reason")
        self._refused = counter("request_refused", "Requests that were answered with an error", "status")
        self.left = counter("request_abandoned", "Requests whose client left before the end").labels(**labels)
        self.first = histogram("time_to_first_token_seconds", "From the request to its first token")
        self.whole = histogram("e2e_request_latency_seconds", "From the request to its last token")

    def ended(self, reason: str) -> None:
        """An answer was given whole."""
        self._ended.labels(**self._labels, finished_reason=reason).inc()

    def refused(self, status: int) -> None:
        """A request was answered with an error."""
        self._refused.labels(**self._labels, status=str(status)).inc()

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return bytes(generate_latest(self.registry))
