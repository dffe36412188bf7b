"""``log``: the end of what a session's kernel wrote outside of cells."""

from __future__ import annotations

import argparse
import sys
from urllib.parse import quote

from .items import Item, kernel_id, names
from .kept import Kept
from .outcome import CommandError, tell
from .sources import Source, Where, opened, resolved
from .tables import print_json


def show(options: argparse.Namespace, where: Where) -> int:
    """Print it, without the secrets in it."""
    problems: list[str] = []
    with opened(where, problems) as sources:
        for source, item in resolved([options.id], sources, problems):
            try:
                text = _read(source, item, options.bytes)
            except CommandError as error:
                problems.append(str(error))
                continue
            if options.json:
                print_json({"id": item["id"], "kernel_id": kernel_id(item), "log": text})
            else:
                sys.stdout.write(text)
    return tell(problems)


def _read(source: Source, item: Item, size: int) -> str:
    if isinstance(source, Kept):
        try:
            return source.log(item, size)
        except OSError:
            raise CommandError(f"there is no log of {names(item)} (any more)") from None
    if item["id"] is None:
        raise CommandError(f"{names(item)} has no session: its log lies in {source.folder}/logs")
    path = f"/sessions/{quote(item['id'], safe='')}/log"
    return source.server.request("GET", path, params={"bytes": size}).text
