# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service's logs on disk with writers of every kind, and the role's own entries for logrotate."""

from __future__ import annotations

import getpass
import grp
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from fluxmaint.core import config as configuration
from fluxmaint.core.clock import Clock
from fluxmaint.core.journal import Journal
from fluxmaint.logs import rotation

HERE = Path(__file__).parent
ROLE = HERE.parents[2] / "roles" / "logrotate"
LINE = re.compile(rb"line (\d{8}) of the writer\n")

needs_logrotate = pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")


@dataclass
class Writing:
    """A process that writes to a log."""

    process: subprocess.Popen[bytes]

    def tick(self) -> None:
        """Have a writer that waits write one line."""
        self.process.send_signal(signal.SIGUSR2)

    def end(self) -> int:
        """End it; returns how many lines it has written."""
        self.process.terminate()
        said, _errors = self.process.communicate(timeout=30)
        return int(said or 0)


@dataclass
class Scene:
    """One host's rotation below a directory of its own."""

    top: Path
    logs: list[dict[str, Any]] = field(default_factory=list)
    variables: dict[str, Any] = field(default_factory=dict)
    processes: list[Writing] = field(default_factory=list)
    can_reload: str = "no"

    @property
    def directory(self) -> Path:
        return self.top / "logs"

    def log(self, writer: str, name: str = "service", **facts: Any) -> Path:
        """Add a log to the contract, and the role's entry for it; returns its file."""
        file = self.directory / f"{name}.log"
        entry = {"name": name, "path": str(self.directory / f"{name}*.log"), "writer": writer, "unit": "a.service"}
        self.logs.append({**entry, **facts})
        if writer not in ("self", "journal"):
            (self.top / "logrotate.d" / f"{name}.conf").write_text(self.stanza(self.logs[-1]))
        return file

    def stanza(self, log: dict[str, Any]) -> str:
        """What the role's template makes of a log."""
        defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
        variables = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
        environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, autoescape=False)
        text = environment.from_string((ROLE / "templates" / "log.conf.j2").read_text()).render(
            item=log,
            service_user=getpass.getuser(),
            service_group=grp.getgrgid(os.getegid()).gr_name,
            __logrotate_reopened=variables["__logrotate_reopened"],
            **{**defaults, **self.variables},
        )
        return text + "\n"

    @property
    def config(self) -> configuration.Config:
        document = {
            "format": 1,
            "service": "sample",
            "host": "here",
            "root": str(self.top),
            "user": "root",
            "group": "root",
            "units": ["a.service"],
            "databases": [{"name": "trades", "path": str(self.top / "trades.db")}],
            "health": {},
            "state_dir": str(self.top / "state"),
            "run_dir": str(self.top / "run"),
            "rotation": {
                "config_dir": str(self.top / "logrotate.d"),
                "state_file": str(self.top / "state" / "logrotate.state"),
                "reopen_wait_s": 1.0,
                "logs": self.logs,
            },
        }
        return configuration.parse(document)

    @property
    def places(self) -> rotation.Places:
        return rotation.Places(
            state_file=self.top / "state" / "logrotate.state",
            record_file=self.top / "state" / "rotation.json",
            code=self.top / "code",
            system_config=self.top / "logrotate.conf",
            system_state=self.top / "system.state",
        )

    def unit(self, _unit: str, name: str) -> str:
        """What systemd would say; there is none here."""
        return {"LoadState": "loaded", "CanReload": self.can_reload}[name]

    def look(self) -> rotation.Facts:
        settings = self.config.require_rotation()
        return rotation.look(settings.logs, self.places, unit=self.unit, clock=Clock())

    def rotate(self, **options: Any) -> dict[str, Any]:
        options.setdefault("force", True)
        journal = Journal(self.top / "state" / "journal.jsonl")
        return rotation.rotate(self.config, journal=journal, places=self.places, unit=self.unit, **options)

    def codes(self) -> list[str]:
        """The codes of what stands in the way."""
        return [finding.code for finding in self.look().refusals]

    def write(self, kind: str, file: Path, rate: float = -1) -> Writing:
        """Start a writer, and wait for its first line."""
        command = [sys.executable, str(HERE / "log_writer.py"), kind, str(file), str(rate)]
        writing = Writing(subprocess.Popen(command, stdout=subprocess.PIPE))
        self.processes.append(writing)
        wait_for(lambda: file.exists() and file.stat().st_size > 0)
        return writing

    def lines(self, file: Path) -> list[int]:
        """Numbers of all whole lines of a log and its archives, in their order."""
        found: list[int] = []
        for path in [*sorted(self.directory.glob(f"{file.name}-*")), file]:
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            assert data.count(b"\n") == len(LINE.findall(data)), path
            found.extend(int(number) for number in LINE.findall(data))
        return found


def wait_for(condition: Callable[[], bool]) -> None:
    """Until something is so; fails after half a minute."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
