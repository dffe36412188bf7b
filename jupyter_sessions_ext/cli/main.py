"""The command line: its verbs and options. What a verb needs is imported when it is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from ..models import EventAction, SessionState
from .outcome import CODES, INTERRUPTED, OK, CommandError, tell
from .units import duration, moment

if TYPE_CHECKING:
    from .sources import Where

SORTS = ("path", "created_at", "last_activity", "cpu", "memory")

_VERBS = {
    "list": "reading.list_sessions",
    "show": "reading.show",
    "stop": "stop.stop",
    "revive": "revive.revive",
    "history": "reading.history",
    "log": "logs.show",
    "transcript": "transcripts.write",
    "export": "transfer.export",
    "import": "transfer.import_file",
    "migrate": "migrate.migrate",
    "check": "check.check",
}
"""Where each verb is."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``jupyter sessions`` and return its exit code."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.verb == "stop" and bool(options.ids) == options.all:
        parser.error("stop: name sessions or kernels, or --all")
    if options.verb == "stop" and options.running and not options.all:
        parser.error("stop: --running goes with --all")
    given = options.state_dir
    if given is not None and not Path(given).is_dir():
        parser.error(f"--state-dir: {given} is not a folder")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a name that cannot be printed must not end it all
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _verb(options.verb)(options, _where(options))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # as of `head`: what is still to be flushed goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK
    except CommandError as error:
        return tell([str(error)], error.code)
    return code


def _verb(name: str) -> Callable[[argparse.Namespace, Where], int]:
    module, _, function = _VERBS[name].partition(".")
    verb: Callable[[argparse.Namespace, Where], int] = getattr(
        import_module(f".{module}", __package__), function
    )
    return verb


def _where(options: argparse.Namespace) -> Where:
    from jupyter_core.paths import jupyter_data_dir

    from ..folder import STATE_DIR, absolute
    from .sources import Where

    default = os.path.join(jupyter_data_dir(), STATE_DIR)
    return Where(
        state_dir=absolute(options.state_dir or default),
        is_given=options.state_dir is not None,
        root_dir=options.root_dir,
        server=options.server,
        token=options.token,
    )


# ---------------------------------------------------------------------- the parser


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all verbs and options."""
    parser = argparse.ArgumentParser(
        prog="jupyter sessions",
        description="Show and steer sessions and kernels, with and without a server.",
        epilog=f"Exit codes: {', '.join(f'{code} {text}' for code, text in CODES.items())}.",
        parents=[_common()],
    )
    parser.set_defaults(json=False, state_dir=None, root_dir=None, server=None, token=None)
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    common = _common()  # not the parser's: what a verb is not given is left as the parser has it

    def add(verb: str, text: str) -> argparse.ArgumentParser:
        return verbs.add_parser(verb, parents=[common], help=text, description=text)

    _add_list(add("list", "Show sessions and kernels, with and without a server."))
    show = add("show", "Show all that is known of one session.")
    _add_reference(show)
    stop = add(
        "stop",
        "End kernels; their sessions turn dormant. Those that are named are ended wherever they "
        "run; --all ends those that no server uses.",
    )
    stop.add_argument("ids", nargs="*", metavar="ID", help="a session or a kernel: id or path")
    stop.add_argument("--all", action="store_true", help="every kernel that no server uses")
    stop.add_argument(
        "--running", action="store_true", help="with --all: those of running servers, too"
    )
    revive = add("revive", "Start kernels for dormant sessions. It needs a running server.")
    revive.add_argument("ids", nargs="+", metavar="ID", help="a session: id or path")
    _add_history(add("history", "Show what has happened, the latest first."))
    log = add("log", "Show the end of what a session's kernel wrote outside of cells.")
    _add_reference(log)
    log.add_argument(
        "--bytes", type=_bytes, default=65536, metavar="N", help="how much (default: 65536)"
    )
    transcript = add("transcript", "Write what a session's kernel ran and printed as a notebook.")
    _add_reference(transcript)
    _add_output(transcript)
    _add_since(transcript)
    export = add("export", "Write all sessions and their history as NDJSON.")
    _add_output(export)
    import_ = add("import", "Add the sessions and the history of an export.")
    import_.add_argument("file", metavar="FILE", help="an export; -: stdin")
    migrate = add("migrate", "Bring databases that no server uses to this version, with a backup.")
    migrate.add_argument("--database", metavar="FILE", help="this one alone")
    add("check", "Look for what is wrong with the set-up, and say what to do.")
    return parser


def _common() -> argparse.ArgumentParser:
    """Return the options that every verb has, and that may also stand before it."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--json", action="store_true", help="print JSON")
    common.add_argument(
        "--state-dir",
        metavar="DIR",
        help="the state folder, where SessionsApp.state_dir is configured",
    )
    common.add_argument("--root-dir", metavar="DIR", help="only the sessions of this root folder")
    common.add_argument("--server", metavar="URL", help="only this running server")
    common.add_argument(
        "--token", help="the server's token, where its file has none; better in JUPYTER_TOKEN"
    )
    return common


def _add_reference(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="a session: its id, the begin of one, or its path")


def _add_list(parser: argparse.ArgumentParser) -> None:
    states = [state.value for state in SessionState]
    parser.add_argument("--state", choices=states, help="only those in this state")
    parser.add_argument("--type", help="only those of this type, such as notebook")
    parser.add_argument("--kernel", metavar="NAME", help="only those of this kernelspec")
    parser.add_argument("--path", metavar="PATTERN", help="only those of such a path: 'work/*'")
    parser.add_argument("--q", metavar="TEXT", help="only those with this text in what names them")
    parser.add_argument(
        "--idle-longer-than",
        type=duration,
        metavar="TIME",
        help="only those without activity for so long: 90, 30s, 15m, 2h, 7d, 2w",
    )
    parser.add_argument(
        "--sort",
        choices=[*SORTS, *(f"-{sort}" for sort in SORTS)],
        default="created_at",
        metavar="BY",
        help=f"{', '.join(SORTS)}; downwards with a - before it: --sort=-memory",
    )


def _add_history(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", nargs="?", metavar="ID", help="only of this session: id or path")
    actions = [action.value for action in EventAction]
    parser.add_argument("--action", choices=actions, metavar="ACTION", help=", ".join(actions))
    _add_since(parser)
    parser.add_argument(
        "--limit", type=_count, default=100, metavar="N", help="at most; 0: all (default: 100)"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", default="-", metavar="FILE", help="default: stdout")


def _add_since(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--since", type=moment, metavar="TIME", help="2026-01-31, 2026-01-31T12:00, or 7d: ago"
    )


def _bytes(text: str) -> int:
    count = _count(text)
    if not 1 <= count <= 1 << 20:
        raise argparse.ArgumentTypeError("must be from 1 to 1048576")
    return count


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return int(text)
