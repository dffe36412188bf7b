"""``docs/command-line.md`` tells of every verb, option, check and exit code, and of no other."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clients import new_session
from commands import run
from servers import Home, Server

from jupyter_sessions_ext.cli.main import make_parser
from jupyter_sessions_ext.cli.outcome import CODES

ROOT = Path(__file__).parents[1]
DOCUMENT = (ROOT / "docs" / "command-line.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL))
VERBS: dict[str, argparse.ArgumentParser] = next(
    dict(action.choices)
    for action in make_parser()._actions
    if isinstance(action, argparse._SubParsersAction)
)


def options(parser: argparse.ArgumentParser) -> set[str]:
    return {option for action in parser._actions for option in action.option_strings}


COMMON = options(make_parser()) - {"--version"}


def first_cells(section: str) -> Iterator[str]:
    """Yield what is in the first column of a section's table, below its title."""
    cells = re.findall(r"^\| (.*?) \|", section, re.MULTILINE)
    yield from cells[1:]


def code_in(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def section_of(verb: str) -> str:
    [section] = [title for title in SECTIONS if title.startswith(f"`{verb}")]
    return str(SECTIONS[section])


def test_every_verb_has_its_section_and_no_other_is_there() -> None:
    titles = [code_in(title)[0].split()[0] for title in SECTIONS if title.startswith("`")]
    assert titles == list(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_of_a_verb_is_documented_and_no_other(verb: str) -> None:
    told = {
        code.split()[0] for cell in first_cells(section_of(verb)) for code in code_in(cell)
        if code.startswith("-")
    }  # fmt: skip
    assert told == options(VERBS[verb]) - COMMON


def test_the_options_of_all_verbs_are_documented() -> None:
    told = {code_in(cell)[0].split()[0] for cell in first_cells(SECTIONS["Options of all verbs"])}
    assert told == COMMON - {"-h", "--help"}


def test_every_exit_code_is_documented_here_and_in_the_help() -> None:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", SECTIONS["Exit codes"], re.MULTILINE)
    assert {int(code): text for code, text in rows} == CODES
    told = " ".join(make_parser().format_help().split())
    assert all(f"{code} {text}" in told for code, text in CODES.items())


def test_the_readme_refers_to_it() -> None:
    assert "(docs/command-line.md)" in (ROOT / "README.md").read_text()


# -------------------------------------------------------------------------- with a server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Return a home where a server runs that has what the examples name."""
    home = Home(tmp_path_factory.mktemp("docs") / "home")
    (home.root_dir / "work").mkdir()
    with Server(home) as server:
        session = new_session(server, "work/report.ipynb")
        server.execute(session["kernel"]["id"], "pass")
        yield home
    assert home.processes() == []


def test_the_examples_run(home: Home) -> None:
    commands = re.findall(r"```bash\n(.*?)```", DOCUMENT, re.DOTALL)[0].splitlines()
    assert {shlex.split(command)[2] for command in commands} == set(VERBS)
    for command in commands:
        arguments = shlex.split(command)
        assert arguments[0] == "jupyter"
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**home.environment(), "PATH": str(Path(sys.executable).parent)},
            cwd=home.path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def fields(value: Any) -> set[str]:
    [first, *_] = value if isinstance(value, list) else [value]
    return set(first)


@pytest.mark.parametrize(
    "arguments",
    [
        "stop work/report.ipynb",
        "revive work/report.ipynb",
        "log work/report.ipynb",
        "export -o out.ndjson",
        "import out.ndjson",
        "migrate",
        "check",
    ],
)
def test_the_fields_of_what_is_printed_as_json_are_documented(home: Home, arguments: str) -> None:
    check_fields(home, arguments)


def test_the_fields_of_what_is_told_of_a_transcript_are_documented(home: Home) -> None:
    [server] = home.servers
    session = new_session(server, "work/transcript.ipynb")
    server.execute(session["kernel"]["id"], "pass")
    check_fields(home, "transcript work/transcript.ipynb -o out.ipynb")


def check_fields(home: Home, arguments: str) -> None:
    if arguments.startswith("import"):
        check_fields(home, "export -o out.ndjson")
    arguments = arguments.replace("-o out", f"-o {home.path}/out")
    arguments = arguments.replace("import out", f"import {home.path}/out")
    done = run(home, *shlex.split(arguments), "--json", env={"PATH": ""})
    assert done.code == 0, done.err
    verb = arguments.split()[0]
    [told] = re.findall(rf"^\| `{verb}` \| (.+) \|$", SECTIONS["JSON"], re.MULTILINE)
    documented = set(code_in(told.partition("Else")[0])) - {"-o FILE"}
    assert documented == fields(done.json)


def test_the_fields_of_items_and_events_are_documented(home: Home) -> None:
    api = (ROOT / "docs" / "admin-api.md").read_text()
    for arguments, known in ((["list"], {"root_dir", "server"}), (["history"], {"root_dir"})):
        for field in fields(run(home, *arguments, "--json").json) - known:
            assert f"`{field}`" in api
        assert all(f"`{field}`" in SECTIONS["JSON"] for field in known)


def test_every_check_is_documented_and_no_other(home: Home) -> None:
    told = {finding["name"] for finding in run(home, "check", "--json").json}
    assert told == {code_in(cell)[0] for cell in first_cells(SECTIONS["`check`"])}
