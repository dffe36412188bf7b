"""Make the pictures of the page that the documentation shows: ``python tests/picture_page.py``."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack, closing
from datetime import datetime, timedelta, timezone
from pathlib import Path
from uuid import uuid4

from browsers import FLAGS, chromium
from clients import new_session, sessions
from homes import database
from messages import execute_request
from pages import bring_in, row, visit
from playwright.sync_api import sync_playwright
from servers import Home, Server

PICTURES = Path(__file__).parent.parent / "docs"
BUSY = "projects/churn/model.ipynb"
LIVE = {
    BUSY: 900,
    "projects/churn/explore.ipynb": 260,
    "teaching/week-4.ipynb": 120,
}
"""Live sessions, and the megabytes that each uses."""
DORMANT = {
    "teaching/week-1.ipynb": timedelta(days=21),
    "teaching/week-2.ipynb": timedelta(days=14),
    "teaching/week-3.ipynb": timedelta(days=7),
    "projects/churn/figures.ipynb": timedelta(hours=3),
    "Untitled.ipynb": timedelta(minutes=40),
}
"""Dormant sessions, and since when."""


def make_pictures(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as temporary, ExitStack() as stack:
        home = Home(Path(temporary) / "home")
        stack.callback(home.close)
        with Server(home, app="lab") as server:
            bring_in(server, *DORMANT)
            for path, megabytes in LIVE.items():
                furnish(server, path, megabytes)
            server.kill()
            grow_old(home)
            server.start()
            [busy] = [s["kernel"]["id"] for s in sessions(server) if s["path"] == BUSY]
            with closing(server.connect(busy)) as channels:
                channels.send(json.dumps(execute_request("while True: pass", uuid4().hex)))
                show(server, folder)


def furnish(server: Server, path: str, megabytes: int) -> None:
    kernel_id = new_session(server, path=path)["kernel"]["id"]
    server.execute(kernel_id, f"x = b'x' * {megabytes} * 10**6")


def grow_old(home: Home) -> None:
    """Let what was made just now be older."""
    now = datetime.now(timezone.utc)
    with database(home) as connection:
        for path, age in DORMANT.items():
            connection.execute(
                "UPDATE session_detail SET since = ?, created_at = ? WHERE session_id ="
                " (SELECT session_id FROM session WHERE path = ?)",
                ((now - age).isoformat(), (now - 2 * age).isoformat(), path),
            )


def show(server: Server, folder: Path) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for scheme, name in (("light", "page.png"), ("dark", "page-dark.png")):
            page = browser.new_page(
                viewport={"width": 1120, "height": 560},
                color_scheme=scheme,  # type: ignore[arg-type]
            )
            visit(page, server)
            row(page, BUSY).locator("[data-execution=busy]").wait_for()
            page.screenshot(path=folder / name, clip={"x": 0, "y": 0, "width": 1120, "height": 480})
        browser.close()


if __name__ == "__main__":
    make_pictures(Path(sys.argv[1]) if len(sys.argv) > 1 else PICTURES)
