"""A small service on disk with keys, configuration and targets: what a backup needs, without root."""

from __future__ import annotations

import copy
import grp
import json
import os
import pwd
import sqlite3
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CANARY = "canary-4f1c9e7ab2d05586"

SCHEMA = """
CREATE TABLE trades(id INTEGER PRIMARY KEY, timestamp TEXT, symbol TEXT, pnl REAL);
CREATE TABLE positions(id INTEGER PRIMARY KEY, trade INTEGER REFERENCES trades(id), status TEXT);
CREATE INDEX trades_by_time ON trades(timestamp);
"""


@dataclass
class World:
    """Directories, keys and a configuration of their own below `top`."""

    top: Path
    document: dict[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.top / "opt" / "fluxhero"

    @property
    def database(self) -> Path:
        return self.root / "data" / "trades.db"

    @property
    def keys(self) -> Path:
        return self.top / "keys"

    @property
    def store(self) -> Path:
        return self.top / "target"

    @property
    def config_file(self) -> Path:
        return self.top / "config.json"

    def config(self, **changes: Any) -> Any:
        """The engine's Config, after writing it; `changes` replace keys of the section backup."""
        from fluxmaint.core.config import load

        document = copy.deepcopy(self.document)
        document["backup"].update(changes)
        self.config_file.write_text(json.dumps(document, indent=2))
        return load(self.config_file)

    def target(self, name: str = "local", path: str = "target", **more: Any) -> dict[str, Any]:
        """A prepared directory as a target."""
        directory = self.top / path
        directory.mkdir(exist_ok=True)
        (directory / ".fluxmaint-target").touch()
        return {"name": name, "type": "path", "path": str(directory), **more}

    def create(
        self, kind: str = "daily", *, accept_drift: bool = False, clock: Any = None, **changes: Any
    ) -> dict[str, Any]:
        """Take a generation for real."""
        from fluxmaint.backup import generation
        from fluxmaint.core.journal import Journal

        config = self.config(**changes)
        journal = Journal(config.journal_file, clock)
        return generation.create(config, kind, clock=clock, journal=journal, accept_drift=accept_drift)

    def open(self, target: str = "local") -> Any:
        """The store of a target of the configuration written last."""
        from fluxmaint.core.config import load
        from fluxmaint.store.open import open_store

        return open_store(load(self.config_file).require_backup().target(target))

    def reading(self, identity: str = "operator") -> dict[str, Any]:
        """The arguments with which a reader verifies and decrypts."""
        return {
            "identity_file": self.keys / f"{identity}.key",
            "allowed_signers_file": self.keys / "allowed_signers",
            "signer": "fluxhero@production",
        }

    def fetch(self, directory: Path, generation: str = "latest", *, target: str = "local", **options: Any) -> Any:
        """Fetch for real."""
        from fluxmaint.backup.fetch import fetch

        arguments = {**self.reading(), **options}
        return fetch(self.open(target), "fluxhero", "production", generation, directory, **arguments)

    def prove(self, generation: str = "latest", *, target: str = "local", **options: Any) -> dict[str, Any]:
        """Prove for real, as a verifier does that has the operator's identity."""
        from fluxmaint.backup import proof

        verifier = {"verifier": "staging", "signing_key_file": self.keys / "verifier_ed25519"}
        arguments = {**self.reading(), "work_dir": self.top / "proofs", **verifier, **options}
        return proof.prove(self.open(target), "fluxhero", "production", generation, **arguments)

    def rows(self, count: int) -> None:
        """Add trades, each with a position."""
        con = sqlite3.connect(self.database)
        with con:
            for _unused in range(count):
                row = con.execute(
                    "INSERT INTO trades(timestamp, symbol, pnl) VALUES (strftime('%Y-%m-%dT%H:%M:%SZ'), 'SPY', 1.5)"
                )
                con.execute("INSERT INTO positions(trade, status) VALUES (?, 'open')", (row.lastrowid,))
        con.close()


def build(top: Path, rows: int = 200) -> World:
    """A service with a database, a secret, nested and rotated logs, cache files and a release."""
    world = World(top)
    for directory in ("data/cache/daily", "logs/old", "releases/r1/venv/bin", "releases/r1/fluxhero"):
        (world.root / directory).mkdir(parents=True)
    con = sqlite3.connect(world.database)
    con.executescript(SCHEMA)
    con.close()
    world.rows(rows)
    (world.root / ".env").write_text(f"API_TOKEN={CANARY}\n")
    (world.root / ".env").chmod(0o640)
    (world.root / "logs/fluxhero.log").write_text("now\n")
    (world.root / "logs/fluxhero.log.1").write_text("rotated\n")
    (world.root / "logs/old/fluxhero.log").write_text("same name, other directory\n")
    (world.root / "data/cache/spy.parquet").write_bytes(b"PAR1" + bytes(5000) + b"PAR1")
    (world.root / "data/cache/daily/qqq.parquet").write_bytes(b"PAR1" + b"q" * 3000 + b"PAR1")
    (world.root / "data/cache/notes.txt").write_text("not wanted\n")
    release = world.root / "releases/r1"
    (release / "REVISION").write_text("0123abcd\n")
    (release / "requirements.txt").write_text("fastapi==1.0\n")
    (release / "fluxhero/app.py").write_text("print('hello')\n")
    (release / "venv/bin/python").write_text("not backed up\n")
    (release / "data").symlink_to(world.root / "data")
    (world.root / "current").symlink_to("releases/r1")
    unit = top / "fluxhero-backend.service"
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    make_keys(world.keys)
    world.store.mkdir()
    (world.store / ".fluxmaint-target").touch()
    for directory in ("state", "run"):
        (top / directory).mkdir()
    world.document = {
        "format": 1,
        "service": "fluxhero",
        "host": "production",
        "root": str(world.root),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "group": grp.getgrgid(os.getgid()).gr_name,
        "units": ["fluxhero-backend.service"],
        "halt_file": str(world.root / "data" / "HALT"),
        "databases": [
            {
                "name": "trades",
                "path": str(world.database),
                "tables": {"trades": ["id", "timestamp", "pnl"]},
                "queries": {"newest": "SELECT max(timestamp) FROM trades"},
                "invariants": [{"name": "ids", "sql": "SELECT count(*) FROM trades WHERE id IS NULL", "expect": 0}],
            }
        ],
        "config_files": [str(world.root / ".env")],
        "logs": {"directory": str(world.root / "logs"), "days": 7},
        "cache": {"directory": str(world.root / "data/cache"), "patterns": ["*.parquet"]},
        "system": {
            "release_link": str(world.root / "current"),
            "exclude": ["venv", "node_modules", ".next", "__pycache__"],
            "paths": [str(unit)],
        },
        "health": {},
        "backup": {
            "staging_dir": str(top / "state/staging"),
            "timeout_s": 300,
            "recipients_file": str(world.keys / "recipients.txt"),
            "signing_key_file": str(world.keys / "signing_ed25519"),
            "signer": "fluxhero@production",
            "allowed_signers_file": str(world.keys / "allowed_signers"),
            "targets": [{"name": "local", "type": "path", "path": str(world.store)}],
        },
        "state_dir": str(top / "state"),
        "run_dir": str(top / "run"),
    }
    return world


def make_keys(directory: Path) -> None:
    """Age identities and signing keys, with the recipients and allowed signers of a backup."""
    directory.mkdir(mode=0o700)
    recipients = []
    for name in ("operator", "escrow", "stranger"):
        file = directory / f"{name}.key"
        subprocess.run(["age-keygen", "-o", file], check=True, capture_output=True)
        public = next(line for line in file.read_text().splitlines() if line.startswith("# public key: "))
        recipients.append(public.rpartition(" ")[2])
    (directory / "recipients.txt").write_text("# operator, escrow\n" + "\n".join(recipients[:2]) + "\n")
    signers = []
    for name, principal in (("signing", "fluxhero@production"), ("foreign", ""), ("verifier", "fluxhero@staging")):
        file = directory / f"{name}_ed25519"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", file], check=True)
        if principal:
            signers.append(f"{principal} {file.with_suffix('.pub').read_text().strip()}")
    (directory / "allowed_signers").write_text("\n".join(signers) + "\n")
