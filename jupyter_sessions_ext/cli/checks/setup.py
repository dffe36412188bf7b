"""Whether the extension is enabled, and what the configuration makes of it."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

from jupyter_core.paths import jupyter_config_path
from jupyter_server.extension.config import ExtensionConfigManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager
from traitlets.config import Application, Config
from traitlets.utils.importstring import import_item

from ... import SessionsApp, __version__
from ...composition import configured_database, needs_cursor
from ...host import POSIX
from ...options import invalid, unknown
from ...storage.sqlite import MEMORY
from .findings import Finding, ok, problem, warning

EXTENSION = "jupyter_sessions_ext"

_CONFIG_FILES = (
    "jupyter_config",
    "jupyter_server_config",
    "jupyter_notebook_config",
    "jupyter_lab_config",
)


def platform() -> Iterator[Finding]:
    """Tell whether kernels can outlive a server here."""
    if POSIX:
        yield ok("platform", f"jupyter_sessions_ext {__version__} on {sys.platform}")
    else:
        yield warning(
            "platform",
            "kernels cannot outlive the server on this platform; sessions can",
            "run the server on Linux or macOS, or in WSL, to keep kernels too",
        )


def load_config() -> tuple[Config, list[Finding]]:
    """Return what the configuration files say together, and what is wrong with them."""
    config = Config()
    findings = [finding for name in _CONFIG_FILES for finding in _load(name, config)]
    return config, findings or [ok("configuration", "it can be loaded")]


def _load(name: str, config: Config) -> Iterator[Finding]:
    try:
        # What a configuration prints must not be taken for what we find.
        with contextlib.redirect_stdout(sys.stderr):
            for part, _ in Application._load_config_files(
                name, path=jupyter_config_path(), raise_config_file_errors=True
            ):
                config.merge(part)
    except Exception as error:  # whatever a configuration raises, as it is code
        yield problem(
            "configuration",
            f"{name} cannot be loaded: {error!r}",
            "mend it: `jupyter --paths` shows where it may lie",
            subject=name,
        )


def extension(config: Config) -> Iterator[Finding]:
    """Tell whether servers load the extension."""
    enable = f"jupyter server extension enable {EXTENSION}"
    said = {
        path: known[EXTENSION]
        for path in jupyter_config_path()
        if EXTENSION in (known := _extensions(path))
    }
    configured: dict[str, bool] = dict(config.ServerApp.get("jpserver_extensions", {}))
    if EXTENSION in configured:
        is_enabled, where = configured[EXTENSION], "ServerApp.jpserver_extensions"
    elif not said:
        yield problem(
            "extension",
            f"no server of this environment ({sys.prefix}) loads it: no configuration names it",
            f"install jupyter_sessions_ext where jupyter_server is, or: {enable} --sys-prefix",
        )
        return
    else:
        where = next(iter(said))  # the first of the paths has the last word
        is_enabled = said[where]
    if is_enabled:
        yield ok("extension", f"it is enabled (in {where})")
    else:
        yield problem("extension", f"it is disabled (in {where})", enable, subject=where)


def _extensions(path: str) -> dict[str, bool]:
    manager = ExtensionConfigManager(read_config_path=[path])
    known: dict[str, bool] = manager.get_jpserver_extensions()
    return known


def options(config: Config) -> Iterator[Finding]:
    """Tell which of the extension's options have no effect."""
    app, section = SessionsApp(), config.SessionsApp
    wrong, without_effect = invalid(app, section), unknown(app, section)
    if not wrong and not without_effect:
        yield ok("options", "those of SessionsApp are valid")
    for option, what in wrong.items():
        yield problem(
            "options",
            f"{what}: its default is used",
            f"mend or remove SessionsApp.{option}",
            subject=option,
        )
    for option in without_effect:
        yield problem(
            "options",
            f"there is no option SessionsApp.{option}: it has no effect",
            "the README lists those that there are",
            subject=option,
        )


def managers(config: Config) -> Iterator[Finding]:
    """Tell whether servers use our manager classes, or ours around the configured ones."""
    if config.GatewayClient.get("url") or os.environ.get("JUPYTER_GATEWAY_URL"):
        yield warning(
            "kernel-manager",
            "the kernels are a gateway's: sessions and kernels are left to jupyter_server",
            "keep kernels on this host: remove GatewayClient.url and JUPYTER_GATEWAY_URL",
        )
        return
    yield _session_manager(config)
    yield _kernel_manager(config)


def _session_manager(config: Config) -> Finding:
    name, trait = "session-manager", "ServerApp.session_manager_class"
    cls = _class(config, "session_manager_class")
    if isinstance(cls, Exception):
        return _not_importable(name, trait, cls)
    if cls is None:
        return ok(name, "it is ours")
    if needs_cursor(cls):
        return problem(
            name,
            f"{cls.__name__} uses the synchronous cursor of jupyter_server's SessionManager: "
            "sessions are left to it, and are not kept",
            f"remove {trait}, or set SessionManager.database_filepath",
            subject=cls.__name__,
        )
    return ok(name, f"{cls.__name__}, together with ours", subject=cls.__name__)


def _kernel_manager(config: Config) -> Finding:
    name, trait = "kernel-manager", "ServerApp.kernel_manager_class"
    cls = _class(config, "kernel_manager_class")
    if isinstance(cls, Exception):
        return _not_importable(name, trait, cls)
    if cls is None:
        return ok(name, "it is ours")
    if not issubclass(cls, AsyncMappingKernelManager):
        return problem(
            name,
            f"{cls.__name__} is not asynchronous: its kernels end with the server",
            f"remove {trait}, or derive the class from AsyncMappingKernelManager",
            subject=cls.__name__,
        )
    return ok(name, f"{cls.__name__}, together with ours", subject=cls.__name__)


def _class(config: Config, trait: str) -> type[Any] | Exception | None:
    configured: type[Any] | str | None = config.ServerApp.get(trait)
    try:
        imported: type[Any] | None = (
            import_item(configured) if isinstance(configured, str) else configured
        )
        return imported
    except Exception as error:  # whatever its module raises
        return error


def _not_importable(name: str, trait: str, error: Exception) -> Finding:
    text = f"what {trait} names cannot be imported: {error}"
    return problem(name, text, "install it in this environment, or mend the configuration")


def keeping(config: Config) -> Iterator[Finding]:
    """Tell what the configuration wants to be kept."""
    on_stop = str(config.SessionsApp.get("kernels_on_stop")).lower()
    if on_stop not in ("keep", "shutdown"):
        on_hub = "JUPYTERHUB_SERVICE_PREFIX" in os.environ
        on_stop = "shutdown" if on_hub else "keep"
    if on_stop == "keep":
        yield ok("kernels-on-stop", "kernels are kept when a server is stopped")
    else:
        yield warning(
            "kernels-on-stop",
            "kernels are ended when a server is stopped (they survive only if it is killed)",
            "to keep them, set SessionsApp.kernels_on_stop = 'keep'",
        )
    try:
        database = configured_database(config)
    except Exception:  # the class that is configured cannot be imported, which is told above
        return
    if database == MEMORY:
        yield warning(
            "configuration",
            "SessionManager.database_filepath is ':memory:': nothing is kept",
            "remove it to keep sessions and kernels",
        )


def shows_hidden(config: Config) -> bool:
    """Tell whether the file browser shows hidden files."""
    return any(
        bool(options.get("allow_hidden", False))
        for name, options in config.items()
        if name.endswith(("ContentsManager", "FileManagerMixin"))
    )
