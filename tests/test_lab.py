"""JupyterLab itself, in a browser, over a server that is killed and started again."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import FLAGS, chromium
from conftest import require
from servers import Home, Server, kernel_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import BrowserContext, Locator, Page

NOTEBOOK = "answer.ipynb"
KERNEL = "Python 3 (ipykernel)"
# JupyterLab's own back-off after a lost connection reaches tens of seconds.
PATIENCE_MS = 90_000


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[BrowserContext]:
    """Run a headless Chromium with an empty profile."""
    executable = chromium()
    require(find_spec("jupyterlab"), "JupyterLab")
    from playwright.sync_api import sync_playwright

    profile = tmp_path / "chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile,
            executable_path=executable,
            headless=True,
            args=FLAGS,
            viewport={"width": 900, "height": 560},
            env={**os.environ, "HOME": str(tmp_path)},
        )
        context.set_default_timeout(PATIENCE_MS)
        yield context
        context.close()


@pytest.fixture
def page(browser: BrowserContext) -> Page:
    """Open an empty page that puts JupyterLab's box about a lost server aside."""
    page = browser.pages[0]
    page.on("dialog", lambda dialog: dialog.accept())
    box = page.locator(".jp-Dialog", has_text="Server Connection Error")
    page.add_locator_handler(box, lambda: box.locator(".jp-Dialog-footer button").last.click())
    return page


@pytest.mark.parametrize(
    ("token", "reload"),
    [
        pytest.param("test-token", False, id="same page"),
        pytest.param("test-token", True, id="reloaded page"),
        pytest.param(None, False, id="same page, a new token at each start"),
    ],
)
def test_variables_survive_a_killed_server(
    home: Home, page: Page, token: str | None, reload: bool
) -> None:
    write_notebook(home, "x = 40", "print(x + 2)")
    with Server(home, app="lab", token=token) as server:
        first_token = server.token
        page.goto(f"{server.url}/lab/tree/{NOTEBOOK}?reset&token={first_token}")
        wait_for_idle_kernel(page)
        run_cell(page, 0).locator(".jp-InputPrompt", has_text="[1]:").wait_for()
        (session,) = server.get("/api/sessions").json()
        (process,) = kernel_processes(home)

        server.kill()
        server.restart()
        if token is None:
            assert server.token != first_token
        if reload:
            page.reload()
            wait_for_idle_kernel(page)
        # A page that was not reloaded has not connected yet: it has to keep what it is to run.
        output = run_cell(page, 1).locator(".jp-OutputArea-output").first
        output.wait_for()

        assert output.inner_text().strip() == "42"
        (same,) = server.get("/api/sessions").json()
        assert (same["id"], same["kernel"]["id"]) == (session["id"], session["kernel"]["id"])
        assert kernel_processes(home) == [process]
        save_screenshot(page)


def write_notebook(home: Home, *cells: str) -> None:
    notebook = {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": KERNEL}},
        "cells": [
            {
                "id": f"cell-{index}",
                "cell_type": "code",
                "source": source,
                "metadata": {},
                "outputs": [],
                "execution_count": None,
            }
            for index, source in enumerate(cells)
        ],
    }
    (home.root_dir / NOTEBOOK).write_text(json.dumps(notebook))


def wait_for_idle_kernel(page: Page) -> None:
    """Wait until the page has its kernel: JupyterLab may forget a cell that is run before."""
    page.locator("#jp-main-statusbar").get_by_text(f"{KERNEL} | Idle").wait_for()


def run_cell(page: Page, index: int) -> Locator:
    """Run one cell of the open notebook as its user does, and return it."""
    cell = page.locator(".jp-Notebook .jp-CodeCell").nth(index)
    cell.locator(".cm-content").click()
    page.locator('[data-command="notebook:run-cell-and-select-next"]').click()
    return cell


def save_screenshot(page: Page) -> None:
    """Save a picture of the page for the documentation, if SESSIONS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("SESSIONS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "lab.png")
