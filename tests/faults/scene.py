# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A service that is backed up, the commands run on it, and the faults that strike them."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fluxmaint.backup.fetch import fetch
from fluxmaint.store.base import Store

from tests.support.world import CANARY, World, build

PROJECT = Path(__file__).resolve().parents[2]
# A row that only the database holds: found elsewhere, data lies around in plain.
PLAIN = "PLAIN-ROW-77c1e2"
# Whoever knows the address to ping can keep the alarm from being raised.
PING = "http://127.0.0.1:9/ping/canary-b2e91c05"


@dataclass(frozen=True)
class Ran:
    """A command that has ended, by itself or by a signal (then `code` is negative)."""

    argv: Sequence[str]
    code: int
    out: str
    err: str
    events: list[dict[str, Any]]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def result(self) -> dict[str, Any]:
        """The JSON document it printed."""
        document: dict[str, Any] = json.loads(self.out)
        return document

    @property
    def children(self) -> list[dict[str, Any]]:
        return [event for event in self.events if "argv" in event]

    def steps(self, journal: Path, longest: int = 30) -> list[range]:
        """The numbers of the events of each step: it ends where a journal entry is written, long ones are divided."""
        ends = [n for n, event in enumerate(self.events, 1) if event["event"] == "open" and event["on"] == str(journal)]
        found = []
        for start, end in zip([0, *ends], [*ends, len(self.events)]):
            found += [range(n + 1, min(n + longest, end) + 1) for n in range(start, end, longest)]
        return found


class EngineServer:
    """A running `engine_server`."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.engine_server"],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *requests: dict[str, Any]) -> list[Ran]:
        """Run these commands at the same time, to their ends."""
        whole = []
        for request in requests:
            self._count += 1
            files = {name: str(self._directory / f"{self._count}.{name}") for name in ("out", "err", "log")}
            whole.append({**files, **request})
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(whole) + "\n")
        self._process.stdin.flush()
        codes = json.loads(self._process.stdout.readline())
        return [_ran(request, code) for request, code in zip(whole, codes)]

    def stop(self) -> None:
        self._process.communicate(timeout=30)


def _ran(request: dict[str, Any], code: int) -> Ran:
    texts = [Path(request[name]) for name in ("out", "err", "log")]
    out, err, log = (path.read_text(errors="backslashreplace") if path.exists() else "" for path in texts)
    events = [json.loads(line) for line in log.splitlines() if line.endswith("}")]
    for path in texts:
        path.unlink(missing_ok=True)
    return Ran(request["argv"], code, out, err, events)


class Scene:
    """A world with its configuration written, and everything that was said about it."""

    def __init__(self, top: Path, server: EngineServer, **changes: Any) -> None:
        self.world: World = build(top)
        self.server = server
        self.said: list[Ran] = []
        self.whole: set[object] = set()  # states of generations that were fetched and checked
        self._stores: dict[str, Store] = {}
        self.temporary = top / "tmp"
        self.temporary.mkdir(mode=0o700)
        with sqlite3.connect(self.world.database) as connection:
            connection.execute("INSERT INTO trades(timestamp, symbol, pnl) VALUES ('2026-01-01', ?, 1)", (PLAIN,))
        connection.close()
        self.ping_file = top / "keys" / "ping.json"
        self.ping_file.write_text(json.dumps({"backup": PING, "verify": PING}))
        self.ping_file.chmod(0o600)
        self.world.document["notify"] = {"ping_file": str(self.ping_file), "hooks_dir": str(top / "hooks.d")}
        self.configure(**changes)

    @property
    def journal(self) -> Path:
        return self.world.top / "state" / "journal.jsonl"

    @property
    def staging(self) -> Path:
        return Path(self.world.document["backup"]["staging_dir"])

    def configure(self, **changes: Any) -> None:
        """Write the configuration again, with other changes of the section backup."""
        self.world.config(**changes)
        document = json.loads(self.world.config_file.read_text())
        document.update(host="staging", state_dir=str(self.verifier), run_dir=str(self.verifier / "run"))
        document["backup"].update(
            signing_key_file=str(self.world.keys / "verifier_ed25519"), signer="fluxhero@staging"
        )
        self.verifier.mkdir(exist_ok=True)
        (self.verifier / "config.json").write_text(json.dumps(document))

    @property
    def verifier(self) -> Path:
        """State and configuration of the other host, which proves what this one has made."""
        return self.world.top / "verifier"

    @property
    def verifier_journal(self) -> Path:
        return self.verifier / "journal.jsonl"

    @property
    def targets(self) -> list[dict[str, Any]]:
        """As configured now."""
        document = json.loads(self.world.config_file.read_text())
        found: list[dict[str, Any]] = document["backup"]["targets"]
        return found

    def secrets(self) -> dict[str, str]:
        """What must never be seen, by what it is."""
        found = {"the service's token": CANARY, "the address to ping": PING.rpartition("/")[2]}
        for key in self.world.keys.glob("*.key"):
            found[f"identity {key.name}"] = key.read_text().strip().splitlines()[-1]
        for key in self.world.keys.glob("*_ed25519"):
            found[f"signing key {key.name}"] = key.read_text().splitlines()[2]
        for target in self.targets:
            if "credentials_file" in target:
                found[f"target {target['name']}"] = json.loads(Path(target["credentials_file"]).read_text())[
                    "secret_key"
                ]
        return found

    def request(self, *words: str | Path, **options: Any) -> dict[str, Any]:
        """A command for the server; `options` are `at`, `fault`, `clock_offset_s`, `uid`, `environ`, `config`."""
        argv = [*map(str, words), "--json", "--config", str(options.pop("config", self.world.config_file))]
        environ = {"TMPDIR": str(self.temporary), **options.pop("environ", {})}
        return {"argv": argv, "environ": environ, **options}

    def run(self, *words: str | Path, **options: Any) -> Ran:
        """Run one command."""
        return self.run_together(self.request(*words, **options))[0]

    def run_together(self, *requests: dict[str, Any]) -> list[Ran]:
        """Run commands at the same time."""
        done = self.server.run(*requests)
        self.said += done
        return done

    def backup(self, **options: Any) -> Ran:
        return self.run("backup", **options)

    def proving(self, target: str, generation: str = "latest", *words: str | Path, **options: Any) -> dict[str, Any]:
        """The request of a proof by the other host: one by the host itself would not count."""
        identity = self.world.keys / "operator.key"
        known = ("prove", "--host", "production", "--target", target, "--identity", identity)
        return self.request(*known, "--generation", generation, *words, config=self.verifier / "config.json", **options)

    def prove(self, target: str, generation: str = "latest", *words: str | Path, **options: Any) -> Ran:
        return self.run_together(self.proving(target, generation, *words, **options))[0]

    def change(self, mark: str) -> None:
        """The service goes on: rows, and new content in its cache."""
        self.world.rows(3)
        (self.world.root / "data/cache/changing.parquet").write_bytes(b"PAR1" + mark.encode() * 50)

    def store(self, target: str) -> Store:
        """The store of a target as configured now; making a client of S3 takes longer than most questions to it."""
        document = json.dumps(next(item for item in self.targets if item["name"] == target))
        if document not in self._stores:
            self._stores[document] = self.world.open(target)
        return self._stores[document]

    def fetched(self, target: str, generation: str) -> tuple[list[Any], str]:
        """Fetch and check a generation; its rows of trades and the text of its configuration file."""
        directory = Path(tempfile.mkdtemp(prefix="fetched-"))
        try:
            store, reading = self.store(target), self.world.reading()
            found = fetch(store, "fluxhero", "production", generation, directory / "out", **reading)
            connection = sqlite3.connect(f"file:{found.database('trades')}?mode=ro&immutable=1", uri=True)
            try:
                rows = connection.execute("SELECT * FROM trades ORDER BY id").fetchall()
            finally:
                connection.close()
            env = next(file.path for file in found.files if file.entry.path.endswith("/.env")).read_text()
        finally:
            shutil.rmtree(directory)
        return rows, env
