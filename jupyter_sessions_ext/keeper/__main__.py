"""``python -m jupyter_sessions_ext.keeper FOLDER``: run a keeper; a server does."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from .server import main

if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    # zmq would wait for what kernels that have ended do not take any more.
    os._exit(code)
