# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared pieces: settings in an empty root, and the service as a real process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from fluxhero.backend.settings import Settings, load_settings

CODE_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture
def settings(root: Path) -> Settings:
    return load_settings({"FLUXHERO_ROOT": str(root), "FLUXHERO_TRADE_RATE": "0"})


@dataclass
class Running:
    """A backend in its own process."""

    process: subprocess.Popen[bytes]
    port: int
    root: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"http://127.0.0.1:{self.port}{path}", timeout=15)

    def status(self) -> dict[str, object]:
        return dict(self.get("/api/status").json())

    def wait_for(self, condition: Callable[[dict[str, object]], bool], timeout_s: float = 20) -> dict[str, object]:
        """Poll the status until the condition holds."""
        deadline = time.monotonic() + timeout_s
        while True:
            status = self.status()
            if condition(status):
                return status
            assert time.monotonic() < deadline, status
            time.sleep(0.05)


@pytest.fixture
def run_backend(root: Path) -> Iterator[Callable[..., Running]]:
    """Start backends on free ports; all are stopped at the end of the test."""
    started: list[subprocess.Popen[bytes]] = []

    def run(**environment: str) -> Running:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        options = ["--timeout-graceful-shutdown=1", "--log-level=warning"]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "fluxhero.backend.main:app", *options, f"--port={port}"],
            cwd=CODE_ROOT,
            env={"PATH": os.environ["PATH"], "FLUXHERO_ROOT": str(root), **environment},
        )
        started.append(process)
        running = Running(process, port, root)
        deadline = time.monotonic() + 30
        while True:
            try:
                running.get("/health")
                return running
            except httpx.TransportError:
                assert process.poll() is None, "the backend ended"
                assert time.monotonic() < deadline, "the backend does not answer"
                time.sleep(0.05)

    yield run
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
