"""What servers tell at ``/metrics`` of sessions, and the PromQL that is asked of it."""

from __future__ import annotations

import contextlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, generate_latest
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "jupyter_sessions_"
FUNCTIONS = {"sum", "rate", "increase", "histogram_quantile"}
OF_PROMETHEUS = {"instance", "job"}
"""Labels that Prometheus adds to whatever it scrapes."""

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """One answer of ``/metrics``: our metrics alone."""

    types: dict[str, str] = field(default_factory=dict)
    """Each metric's type by its name, as it is documented."""
    series: dict[tuple[str, Labels], float] = field(default_factory=dict)
    """Values by the name of the sample and its labels."""

    @classmethod
    def of(cls, text: str) -> Scrape:
        scrape = cls()
        for family in text_string_to_metric_families(text):
            if not family.name.startswith(PREFIX) or family.name.endswith("_created"):
                continue
            name = family.name + ("_total" if family.type == "counter" else "")
            scrape.types[name] = family.type
            for sample in family.samples:
                key = (sample.name, frozenset(sample.labels.items()))
                assert key not in scrape.series, key
                scrape.series[key] = sample.value
        return scrape

    def __call__(self, name: str, **labels: str) -> float:
        return self.series[PREFIX + name, frozenset(labels.items())]

    def counted(self, name: str) -> dict[tuple[str, ...], float]:
        """Return the values of a metric's series that are not 0, by the values of its labels."""
        return {
            tuple(value for _, value in sorted(labels)): number
            for (sample, labels), number in self.series.items()
            if sample == PREFIX + name and number
        }

    def labels(self, sample: str) -> dict[str, set[str]]:
        """Return the labels of a sample, and which values each has."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for name, labels in self.series:
            if name == sample:
                for label, value in labels:
                    found[label].add(value)
        return found


def here() -> Scrape:
    """Return what a server in this process would tell."""
    return Scrape.of(generate_latest(REGISTRY).decode())


@contextlib.contextmanager
def counting(name: str) -> Iterator[dict[tuple[str, ...], float]]:
    """Yield what is filled, at the end, with how much the series of a metric have grown."""
    grown: dict[tuple[str, ...], float] = {}
    before = here().counted(name)
    yield grown
    after = here().counted(name)
    grown |= {key: after[key] - before.get(key, 0) for key in after}
    for key in [key for key in grown if not grown[key]]:
        del grown[key]


def selectors(expression: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each (sample, wanted label values) that an expression of PromQL names."""
    bare = re.sub(r"\b(?:by|without)\s*\([^)]*\)|\[[^]]*\]", " ", expression)
    for name, is_called, wanted in re.findall(r"\b([a-zA-Z_:]\w*)\b(\s*\()?(\{[^}]*\})?", bare):
        if is_called:
            assert name in FUNCTIONS, f"{name} in {expression}"
        else:
            yield name, dict(re.findall(r'(\w+)\s*[!=]~?\s*"([^"]*)"', wanted))


def groupings(expression: str) -> set[str]:
    """Return the labels by which an expression of PromQL groups."""
    lists = re.findall(r"\b(?:by|without)\s*\(([^)]*)\)", expression)
    return {label.strip() for labels in lists for label in labels.split(",")}
