"""``transcript``: what a session's kernel ran and printed, as a notebook."""

from __future__ import annotations

import argparse
from datetime import datetime
from urllib.parse import quote

import msgspec

from ..administration.schemas import Notebook
from ..administration.transcript import NothingRecordedError, write_file
from .files import STANDARD, written
from .items import Item, kernel_id, names
from .kept import Kept
from .outcome import CommandError, note, tell
from .sources import Source, Where, opened, resolved
from .tables import print_json


def write(options: argparse.Namespace, where: Where) -> int:
    """Write it."""
    problems: list[str] = []
    with opened(where, problems) as sources:
        for source, item in resolved([options.id], sources, problems):
            try:
                notebook = _read(source, item, options.since)
            except CommandError as error:
                problems.append(str(error))
                continue
            with written(options.output) as out:
                out.write(write_file(notebook))
            if options.output != STANDARD:
                _tell_of(item, notebook, options)
    return tell(problems)


def _tell_of(item: Item, notebook: Notebook, options: argparse.Namespace) -> None:
    cells = sum(cell["cell_type"] == "code" for cell in notebook.cells)
    if options.json:
        told = {"id": item["id"], "kernel_id": kernel_id(item)}
        print_json({**told, "cells": cells, "file": options.output})
    else:
        note(f"wrote {cells} cell(s) of {names(item)}")


def _read(source: Source, item: Item, since: datetime | None) -> Notebook:
    if isinstance(source, Kept):
        try:
            return source.transcript(item, since)
        except NothingRecordedError:
            raise CommandError(f"nothing is recorded of the kernel of {names(item)}") from None
    if item["id"] is None:
        raise CommandError(
            f"{names(item)} has no session: give it one (`Attach` on the page), then ask again"
        )
    asked = {"since": since.isoformat()} if since else {}
    path = f"/sessions/{quote(item['id'], safe='')}/transcript"
    reply = source.server.request("GET", path, params=asked)
    return msgspec.json.decode(reply.content, type=Notebook)
