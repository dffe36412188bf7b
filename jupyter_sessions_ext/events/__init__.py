"""The history on the server's event bus: each committed event, under a schema of our own."""

from __future__ import annotations

from pathlib import Path

from jupyter_events import EventLogger

from ..models import Event

SESSION_EVENTS = "https://schema.jupyter.org/jupyter_sessions_ext/session/v1"
KERNEL_EVENTS = "https://schema.jupyter.org/jupyter_sessions_ext/kernel/v1"


class Emitter:
    """Emits events where a server's handlers and ``/api/events/subscribe`` get them."""

    def __init__(self, bus: EventLogger) -> None:
        self._bus = bus
        for file in sorted(Path(__file__).parent.glob("*.yaml")):
            bus.register_event_schema(file)

    def __call__(self, event: Event) -> None:
        """Emit one event; it costs next to nothing where nobody listens."""
        data = {
            "action": event.action.value,
            "session_id": event.session_id,
            "kernel_id": event.kernel_id,
            "detail": event.detail,
            "user": event.user,
        }
        self._bus.emit(
            schema_id=SESSION_EVENTS if event.session_id else KERNEL_EVENTS,
            data={name: value for name, value in data.items() if value is not None},
            timestamp_override=event.time,
        )
