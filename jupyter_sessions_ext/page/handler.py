"""The page at ``/sessions``: one template, whose scripts ask the administration API."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from jupyter_server.auth.decorator import authorized
from jupyter_server.base.handlers import JupyterHandler
from jupyter_server.extension.handler import ExtensionHandlerJinjaMixin, ExtensionHandlerMixin
from tornado import web

RESOURCE = "sessions_admin"
"""What an authorizer is asked about: the same as for the API that the page shows."""

STATIC = str(Path(__file__).parent / "static")
TEMPLATES = str(Path(__file__).parent / "templates")


class FrontEnd(NamedTuple):
    """Where an application of this server opens a session's document, below the base URL."""

    name: str
    home: str
    notebook: str
    file: str


LAB = FrontEnd("JupyterLab", "lab", "lab/tree/", "lab/tree/")
NOTEBOOK = FrontEnd("Jupyter Notebook", "tree", "notebooks/", "edit/")


class PageHandler(ExtensionHandlerJinjaMixin, ExtensionHandlerMixin, JupyterHandler):
    """Answer the page; whatever it shows it asks for itself."""

    auth_resource = RESOURCE

    @property
    def content_security_policy(self) -> str:
        """Allow only what comes from this server, unless the server has a policy of its own."""
        policy = super().content_security_policy
        if "Content-Security-Policy" in self.settings.get("headers", {}):
            return policy
        return f"{policy}; default-src 'self'; base-uri 'none'; form-action 'none'"

    @web.authenticated
    @authorized("read", resource=RESOURCE)
    async def get(self) -> None:
        """Show the page."""
        self.finish(self.render_template("sessions.html", front_end=self._front_end()))

    def _front_end(self) -> FrontEnd | None:
        """Return the application that opens documents: the one that this server was started as."""
        linked = self.serverapp.extension_manager.linked_extensions
        both = {"jupyterlab": LAB, "notebook": NOTEBOOK}
        loaded = [front_end for package, front_end in both.items() if linked.get(package)]
        started = [f for f in loaded if f"{self.serverapp.default_url}/".startswith(f"/{f.home}/")]
        return next(iter(started + loaded), None)


handlers = [(r"/sessions/?", PageHandler)]
