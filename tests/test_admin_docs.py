"""``docs/admin-api.md`` tells of every route, parameter and field, and of no others."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from administered import Administered
from clients import new_session

from jupyter_sessions_ext.administration import schemas
from jupyter_sessions_ext.api import admin
from jupyter_sessions_ext.api.documents import admin_document

if TYPE_CHECKING:
    from servers import Server

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "admin-api.md").read_text()
PATHS = admin_document()["paths"]


def section(title: str) -> str:
    found = re.search(rf"^(#+) {title}\n(.*?)(?=^#{{1,3}} |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found is not None, title
    return found[2]


def named_in_rows(text: str) -> set[str]:
    """Return what the first cells of a section's tables name."""
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}


def test_every_route_is_documented_and_described_and_no_other() -> None:
    described = {f"{m.upper()} {path}" for path, all_of in PATHS.items() for m in all_of}
    described -= {one for one in described if one.startswith("PARAMETERS")}
    told = set(re.findall(r"`((?:GET|POST|PATCH|DELETE) /sessions/api/v1[^`?]*)", TEXT))
    told |= {"GET /sessions/api/v1/openapi.json"}  # in the introduction
    assert "`/sessions/api/v1/openapi.json`" in TEXT
    shortened = {one.replace("session_id", "id").replace("kernel_id", "id") for one in described}
    assert told == shortened
    served = set()
    for pattern, handler in admin.handlers:
        path = re.sub(r"\(\?P<(\w+)>\[[^)]*\)", r"{\1}", pattern).replace("/?", "")
        path = path.replace("\\", "")
        choices = re.search(r"\(\?P<action>([^)]*)\)", path)
        for action in choices[1].split("|") if choices else [""]:
            whole = path.replace(choices[0], action) if choices else path
            for method in ("get", "post", "patch", "delete"):
                if method in vars(handler):
                    served.add(f"{method.upper()} {whole}")
    assert served == described


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("Lists", schemas.SessionsQuery),
        ("Transcripts", schemas.TranscriptQuery),
        ("History", schemas.EventsQuery),
    ],
)
def test_every_parameter_is_documented_and_no_other(title: str, struct: type) -> None:
    assert named_in_rows(section(title)) == set(struct.__struct_fields__)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("title", "struct"),
    [
        ("Logs", schemas.LogQuery),
        ("Kernels", schemas.KernelsQuery),
        ("Kernels", schemas.KernelItem),
        ("Kernels", schemas.Attachment),
        ("History", schemas.EventItem),
        ("Changing a session", schemas.SessionChange),
        ("Changing a session", schemas.KernelChange),
        ("Many sessions at once", schemas.ActionResults),
        ("Many sessions at once", schemas.ActionResult),
        ("Many sessions at once", schemas.Filter),
        ("Sessions", schemas.Process),
        ("Sessions", schemas.DeleteQuery),
        ("The server", schemas.ServerInfo),
        ("The server", schemas.WorkspaceInfo),
        ("The server", schemas.StoreInfo),
        ("The server", schemas.Health),
        ("Export and import", schemas.Imported),
    ],
)
def test_every_field_is_documented(title: str, struct: type) -> None:
    for field in struct.__struct_fields__:  # type: ignore[attr-defined]
        assert re.search(rf"\b{field}\b", section(title)), field


def test_the_fields_of_items_and_actions_are_documented_and_no_other() -> None:
    items = named_in_rows(section("Sessions"))
    assert items == set(schemas.SessionItem.__struct_fields__)
    many = named_in_rows(section("Many sessions at once"))
    assert many == set(schemas.BulkAction.__struct_fields__)


def test_what_an_authorizer_is_asked_about_is_documented() -> None:
    assert f"`{admin.RESOURCE}`" in TEXT


def test_the_examples_are_true(server: Server) -> None:
    asked = Administered(server)
    new_session(server)
    reply = asked.ask("GET", "/sessions?limit=1001")
    assert f'"message": "{reply.json()["message"]}"' in TEXT
    [example] = re.findall(r"```json\n(.*?)```", TEXT, re.DOTALL)
    answer = asked.ask("POST", "/sessions/actions", json.loads(example))
    assert (answer.status_code, answer.json()["total"]) == (200, 0)
    assert asked.ask("GET", "/health").json() == {"status": "ok"}
    assert '`{"status": "ok"}`' in TEXT
