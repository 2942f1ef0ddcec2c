# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Log output: `2026-01-21 10:00:00.123 | ERROR    | module:function:line - message`, in UTC."""

from __future__ import annotations

import logging
import sys
import time

from .settings import Settings

LINE = "%(asctime)s.%(msecs)03d | %(levelname)-8s | %(name)s:%(funcName)s:%(lineno)d - %(message)s"


def configure_logging(settings: Settings) -> None:
    """Send every record to the profile's log: its own file, or standard output for the service manager."""
    handler: logging.Handler
    if settings.log_file is not None:
        settings.log_file.parent.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(settings.log_file, encoding="utf-8")
    else:
        handler = logging.StreamHandler(sys.stdout)
    formatter = logging.Formatter(LINE, datefmt="%Y-%m-%d %H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level)
    _route_uvicorn(handler, keep_own=settings.log_file is None)


def _route_uvicorn(handler: logging.Handler, *, keep_own: bool) -> None:
    """Let uvicorn's records reach the log; upstream leaves uvicorn's own handlers on, so they appear twice there."""
    for name in ("uvicorn", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.propagate = False
        logger.handlers[:] = [*logger.handlers, handler] if keep_own else [handler]
