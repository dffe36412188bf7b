"""The README tells the truth: what can be configured and called is in it, and what is in it is."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from jupyter_events import EventLogger

from jupyter_sessions_ext import SessionManager, SessionsApp
from jupyter_sessions_ext.events import KERNEL_EVENTS, SESSION_EVENTS, Emitter
from jupyter_sessions_ext.models import TRANSITIONS, Event, EventAction, SessionState

if TYPE_CHECKING:
    from servers import Home

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
API = (ROOT / "docs" / "sessions-api.md").read_text()
OWN_TRAITS = [
    f"{cls.__name__}.{name}"
    for cls in (SessionsApp, SessionManager)
    for name, trait in cls.class_traits(config=True).items()
    if name in cls.class_own_traits() or trait.this_class.__module__.startswith("jupyter_sessions")
]


@pytest.mark.parametrize("trait", [*OWN_TRAITS, "SessionManager.database_filepath"])
def test_every_option_is_documented(trait: str) -> None:
    assert f"| `{trait}` |" in README


@pytest.mark.parametrize("option", re.findall(r"^\| `(\w+\.\w+)` \|", README, re.MULTILINE))
def test_every_documented_option_exists(option: str) -> None:
    known = {
        f"{cls.__name__}.{name}"
        for cls in (SessionsApp, SessionManager)
        for name in cls.class_traits(config=True)
    }
    assert option in known


def test_the_commands_of_the_readme_run(home: Home) -> None:
    for command in ("list", "stop --all"):
        assert f"jupyter sessions {command}\n" in README
        done = subprocess.run(
            [sys.executable, "-m", "jupyter", "sessions", *command.split()],
            env=home.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def test_what_the_readme_refers_to_is_there() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target
    image = ROOT / "docs" / "survived.png"
    assert image.stat().st_size < 150_000


def test_the_test_command_of_the_readme_is_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text()
    assert "pip install '.[test]'" in README
    assert "'.[test]'" in ci
    assert ci.rstrip().endswith('/bin/python" -m pytest -p no:cacheprovider')


def test_every_transition_is_documented() -> None:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]*) ?\| ([\w ]*) ?\| .+ \|$", API, re.MULTILINE)
    states = {"live": SessionState.LIVE, "dormant": SessionState.DORMANT, "none": None}
    told = {
        action: {
            (states[word], states.get(after.strip(), states[word]))
            for word in before.strip().split(", ")
            if word
        }
        for action, before, after in rows
    }
    legal = {action.value: set(pairs) for action, pairs in TRANSITIONS.items()}
    legal["revived"].discard((SessionState.LIVE, SessionState.LIVE))  # not yet known to be dormant
    assert told == {**legal, EventAction.ADOPTED.value: set()}


def test_every_event_has_its_schema() -> None:
    logger = EventLogger()
    emitter = Emitter(logger)
    actions: set[str] = set()
    for schema_id in (SESSION_EVENTS, KERNEL_EVENTS):
        assert schema_id in API
        schema = logger.schemas.get(schema_id)._schema
        assert schema["personal-data"] is True
        assert not actions & set(schema["properties"]["action"]["enum"])
        actions |= set(schema["properties"]["action"]["enum"])
    assert actions == {action.value for action in EventAction}
    # With a handler each is validated.
    seen: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: seen.append(record.msg["action"])  # type: ignore[method-assign, index]
    logger.register_handler(handler)
    for action in EventAction:
        session_id = None if action is EventAction.ADOPTED else "s"
        emitter(Event(action=action, session_id=session_id, kernel_id="k"))
    assert seen == [action.value for action in EventAction]


@pytest.mark.parametrize("language", ["python"])
def test_code_in_the_readme_runs(language: str) -> None:
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_each_pair_of_requests_that_is_documented_is_tested_and_the_other_way_round() -> None:
    document = (ROOT / "docs" / "sessions-api.md").read_text()
    section = document.partition("## What happens at once")[2].partition("\n## ")[0]
    documented = re.findall(r"`(\w+)` \|$", section, re.MULTILINE)
    tested = [
        name
        for file in (ROOT / "tests").glob("test_races*.py")
        for name in re.findall(r"^def test_(\w+)", file.read_text(), re.MULTILINE)
    ]
    assert sorted(documented) == sorted(tested)
