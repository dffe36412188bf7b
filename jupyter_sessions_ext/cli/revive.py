"""``revive``: give dormant sessions a kernel again."""

from __future__ import annotations

import argparse
import shlex
from typing import Any
from urllib.parse import quote

from .items import Item, names
from .outcome import FAILED, NO_SERVER, CommandError, tell
from .servers import at_once
from .sources import Running, Source, Where, opened, resolved
from .tables import clean, print_json, progress

_AT_ONCE = 4
"""Kernels that are started at a time: it takes the CPU."""

_START = "start one with `jupyter lab` or `jupyter server`"


def revive(options: argparse.Namespace, where: Where) -> int:
    """Start kernels for sessions: they are live again, under their ids."""
    problems: list[str] = []
    with opened(where, problems) as sources:
        if not any(isinstance(source, Running) for source in sources):
            raise CommandError(f"no server runs that could start a kernel: {_START}", NO_SERVER)
        meant = resolved(options.ids, sources, problems)
        asked = [(s, item) for s, item in meant if isinstance(s, Running) and item["id"]]
        alone = [item for _, item in meant if not item["id"]]
        missing = [(s, item) for s, item in meant if not isinstance(s, Running) and item["id"]]
        with progress("reviving", len(asked)) as shown:
            results = at_once(_revive, asked, most=_AT_ONCE, done=shown.advance)
    problems += [f"{names(item)} has no session: it runs" for item in alone]
    problems += [f"{r['id']} ({r['path']}): {r['message']}" for r in results if not r["done"]]
    if options.json:
        print_json(results)
    else:
        for result in results:
            if result["done"]:
                print(f"{result['id']} ({clean(result['path'] or '')}) is live.")
    code = tell(problems, FAILED)
    return tell((_missing(*pair) for pair in missing), code or NO_SERVER) or code


def _revive(asked: tuple[Running, Item]) -> dict[str, Any]:
    source, item = asked
    message = ""
    try:
        source.server.request("POST", f"/sessions/{quote(item['id'], safe='')}/revive")
    except CommandError as error:
        message = str(error)
    return {
        "id": item["id"],
        "path": item["path"],
        "root_dir": source.root_dir,
        "done": not message,
        "message": message,
    }


def _missing(source: Source, item: Item) -> str:
    root = shlex.quote(source.root_dir)
    return (
        f"{names(item)} needs a server of {source.root_dir} ({source.use}): "
        f"{_START} --ServerApp.root_dir={root}"
    )
