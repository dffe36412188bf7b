"""JupyterLab itself, in a browser, over a server that is killed and started again."""

from __future__ import annotations

import json
import os
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from browsers import FLAGS, chromium
from conftest import require
from homes import until_recorded
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
        save_screenshot(page, "lab.png")


COUNTS = "import time\nfor i in range({}):\n    print(i, end=' ', flush=True); time.sleep(0.02)"


def test_a_cell_goes_on_over_a_killed_server_and_one_ends_meanwhile_and_all_is_shown(
    home: Home, browser: BrowserContext
) -> None:
    page = browser.pages[0]  # one that no box may be put aside on
    counts = [COUNTS.format(count) for count in (300, 100)]
    write_notebook(home, *counts, "name = input('who? ')", "print(name)")
    with Server(home, app="lab") as server:
        page.goto(f"{server.url}/lab/tree/{NOTEBOOK}?reset&token={server.token}")
        wait_for_idle_kernel(page)
        cell = run_cell(page, 0)
        cell.locator(".jp-OutputArea-output", has_text="20 21 22").wait_for()
        save_screenshot(page, "running-before.png")
        server.restart()
        began = time.monotonic()
        cell.locator(".jp-InputPrompt", has_text="[1]:").wait_for()
        assert time.monotonic() - began < 20  # it has 6 s to go itself
        assert cell.locator(".jp-OutputArea-output").inner_text().split() == numbers(300)
        save_screenshot(page, "running-after.png")

        cell = run_cell(page, 1)
        cell.locator(".jp-OutputArea-output", has_text="20 21 22").wait_for()
        server.terminate()
        until_recorded(home, "99 ")
        wait_longer(page, 3)
        server.start()
        began = time.monotonic()
        cell.locator(".jp-InputPrompt", has_text="[2]:").wait_for()
        assert time.monotonic() - began < 15
        assert cell.locator(".jp-OutputArea-output").inner_text().split() == numbers(100)

        asking = run_cell(page, 2)
        asking.locator(".jp-Stdin-input").wait_for()
        server.restart()
        wait_longer(page, 3)
        assert asking.locator(".jp-Stdin-input").count() == 1
        asking.locator(".jp-Stdin-input").fill("Ada")
        asking.locator(".jp-Stdin-input").press("Enter")
        asking.locator(".jp-InputPrompt", has_text="[3]:").wait_for()
        output = run_cell(page, 3).locator(".jp-OutputArea-output").first
        output.wait_for()
        assert output.inner_text().strip() == "Ada"
        assert page.locator(".jp-Dialog").count() == 0


def numbers(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def wait_longer(page: Page, seconds: float) -> None:
    """Let the page notice, as far as it will, that there is no server."""
    page.wait_for_timeout(1000 * seconds)


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


def save_screenshot(page: Page, name: str) -> None:
    """Save a picture of the page for the documentation, if SESSIONS_SCREENSHOTS names a folder."""
    if folder := os.environ.get("SESSIONS_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / name)
