"""How fast a kernel sends, by its own clock."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from jupyter_sessions_ext.kernels.pace import Pace, sent_at

NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def test_what_was_sent_before_the_window_does_not_count() -> None:
    pace = Pace(2)
    for second in range(10):
        for _ in range(5):
            pace.add(second, 100)
        assert pace.is_within(5, 500)
    assert not pace.is_within(4, 500)
    assert not pace.is_within(5, 499)
    pace.add(20, 100)
    assert pace.is_within(0.5, 50)


def test_a_limit_of_nothing_is_none() -> None:
    pace = Pace(1)
    for _ in range(1000):
        pace.add(0, 1000)
    assert pace.is_within(0, 0)
    assert not pace.is_within(1, 0)
    assert not pace.is_within(0, 1)
    pace.reset()
    assert pace.is_within(1, 1)


@pytest.mark.parametrize(
    "date", [NOON, "2026-01-01T12:00:00Z", "2026-01-01T12:00:00.000000Z", "2026-01-01T13:00+01:00"]
)
def test_when_a_message_was_sent_is_read_in_any_form(date: object) -> None:
    assert sent_at(date) == NOON.timestamp()


@pytest.mark.parametrize("date", ["", "now", None, 5])
def test_what_is_no_date_is_none(date: object) -> None:
    assert sent_at(date) is None
