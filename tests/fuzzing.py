"""What the tests that send anything at all have in common: how much, what, and what must hold."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import quote

import minimal_kernel
import pytest
from drills import FULL
from hypothesis import HealthCheck, Phase, assume, settings
from hypothesis import strategies as st
from schemathesis.specs.openapi import checks
from servers import Home, Server, kernel_processes, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import schemathesis

Test = TypeVar("Test", bound="Callable[..., object]")

LONGEST: Final = 10.0
"""Seconds for one request: what takes longer hangs."""
LONGEST_URL: Final = 60_000
"""Bytes; tornado reads no more than 64 KiB of headers."""

TEXT: Final = st.text() | st.text(st.characters(categories=["Cs", "Cc", "L"]))
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)
PATHS: Final = st.sampled_from(
    ["a", "../a", "a/../../b", "/", "..", "", "x" * 5000, "a\0", "\ud800"]
)


@contextlib.contextmanager
def fuzzed_server(folder: Path) -> Iterator[Server]:
    """Run a server with a minimal kernel; nothing is left of it, and nothing in it has failed."""
    home = Home(folder / "home")
    minimal_kernel.install(home)
    with Server(home, **minimal_kernel.OPTIONS) as server:
        yield server
        wait_until(lambda: not kernel_processes(home), 5, "no kernel was left")
        assert "Uncaught exception" not in server.log
    assert home.processes() == []


def fuzz(count: int, names: tuple[str, ...], cases: Iterable[Any]) -> Callable[[Test], Test]:
    """Mark a test as a drill of so many examples in all, which is run for each of these cases."""
    each = pytest.mark.parametrize(names, [*cases], ids=str)
    return lambda test: pytest.mark.drill(pytest.mark.timeout(60 + count)(each(test)))


def near(*fields: str) -> st.SearchStrategy[dict[str, Any]]:
    """Return objects that have these fields, or not, with any value."""
    return st.fixed_dictionaries({}, optional=dict.fromkeys(fields, VALUES))


def raw(bodies: st.SearchStrategy[Any], *known: bytes) -> st.SearchStrategy[bytes]:
    """Return the bytes of bodies, of other values, of these, and of none."""
    return st.one_of(
        bodies.map(lambda value: json.dumps(value).encode()),
        VALUES.map(lambda value: json.dumps(value).encode()),
        st.binary(),
        st.sampled_from(
            [b"", b" ", b"null", b"\xff\xfe{}", b"[" * 100_000, b"1" * 5000, b"NaN", *known]
        ),
    )


def examples(number: float) -> Callable[[Any], Any]:
    """Have so many of them tried, always the same ones unless the drills are run in full."""
    return settings(
        max_examples=max(round(number), 1),
        derandomize=not FULL,
        phases=[Phase.generate, *([Phase.shrink] if FULL else [])],
        database=None,
        deadline=None,  # an example may start a kernel
        # Bodies that a schema forbids are found by trying.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        print_blob=True,
    )


def check_answer(
    case: schemathesis.Case[Any],
    response: Any,
    never_a_fault: Callable[[Any, Any, Any], None],
    more: Sequence[Any] = (),
) -> None:
    """Check an answer against the document.

    :raises AssertionError: with the request
    """
    case.validate_response(
        response,
        checks=[
            never_a_fault,
            checks.status_code_conformance,
            checks.content_type_conformance,
            checks.response_headers_conformance,
            checks.response_schema_conformance,
            *more,
        ],
    )


def call(case: schemathesis.Case[Any], url: str, token: str) -> Any:
    """Send a request, unless its URL is longer than any server reads."""
    assume(len(quote(repr(case.query))) < LONGEST_URL)
    return case.call(base_url=url, headers={"Authorization": f"token {token}"}, timeout=LONGEST)
