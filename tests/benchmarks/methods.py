# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared: for snapshots, for whole generations and for restores, each method as a command.

Nothing is tuned against a peer: restic and borg run with their defaults (borg with `zstd,3`, which is better
and faster than its default), the guide's script does what the guide prints, in other directories.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.world import World, build

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "restic": "restic", "borg": "borgbackup", "age": "age", "zstd": "zstd", "sqlite3": "sqlite3", "rsync": "rsync",
    "goaccess": "goaccess", "openssl": "openssl",
}
OURS_QUIET = "ours, nobody writes"

# The guide's backup: its commands in its order, without the messages.
_GUIDE_BACKUP = """
set -e
name="fluxhero_backup_$(date +%Y%m%d_%H%M%S)"
mkdir -p "$BACKUPS/$name" "$REMOTE"
sqlite3 "$DATABASE" ".backup '$BACKUPS/$name/trades.db'"
cp "$ENV_FILE" "$BACKUPS/$name/"
cd "$BACKUPS"
tar -czf "$name.tar.gz" "$name"
rm -rf "$name"
sha256sum "$name.tar.gz" > "$name.tar.gz.sha256"
rsync -avz "$BACKUPS/$name.tar.gz" "$REMOTE/"
sha256sum -c "$name.tar.gz.sha256" > /dev/null
"""
_GUIDE_RESTORE = """
set -e
temporary=$(mktemp -d -p "$OUT")
tar -xzf "$(ls "$BACKUPS"/fluxhero_backup_*.tar.gz | tail -n 1)" -C "$temporary"
cp "$temporary"/fluxhero_backup_*/trades.db "$OUT/trades.db"
rm -rf "$temporary"
"""
# What a proven generation takes at the least with the tools that it is made of: no lock, no signature, no rows counted.
_PROVEN_BY_HAND = """
set -e
cp "$DATABASE" "$COPY"
sqlite3 "file:$COPY?immutable=1" 'PRAGMA integrity_check' > "$COPY.verdict" &
checking=$!
{ zstd -q -c $FLAGS < "$COPY" | age -r "$RECIPIENT" > "$OUT"; } &  # braces, or the status of zstd is lost
encrypting=$!
openssl dgst -sha256 "$COPY" > "$COPY.sha256"
wait $encrypting
sync "$OUT"
openssl dgst -sha256 "$OUT" >> "$COPY.sha256"
wait $checking
test "$(cat "$COPY.verdict")" = ok
rm "$COPY"
"""
# What restic needs for a backup that is whole and checked: a copy at rest.
_CHECKED_RESTIC = """
set -e
cp "$DATABASE" "$COPY"
sqlite3 "file:$COPY?immutable=1" 'PRAGMA integrity_check' > "$COPY.verdict" &
checking=$!
restic backup -q "$COPY"
wait $checking
test "$(cat "$COPY.verdict")" = ok
rm "$COPY"
"""
_CHECK = """
test "$(sqlite3 "file:$FILE?mode=ro" 'PRAGMA integrity_check')" = ok
"""


@dataclass(frozen=True)
class Method:
    """One way to do it.

    Attributes:
        command: what is measured.
        output: what it makes; its size is `bytes_out`, and it is removed before each run.
        prepare: what has to be there first and is not measured (an empty repository).
        once: it does not end under load, or takes too long to repeat: one round in a large case.
        quiet: nobody writes meanwhile.
    """

    name: str
    command: Sequence[str]
    output: Path
    environment: dict[str, str] = field(default_factory=dict)
    prepare: Callable[[], None] | None = None
    once: bool = False
    quiet: bool = False

    def prepare_now(self) -> None:
        """Make what has to be there first."""
        if self.prepare is not None:
            self.prepare()


def shell(script: str, **variables: Path | str) -> list[str]:
    """A script for bash, with variables."""
    head = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items())
    return ["bash", "-c", f"set -o pipefail\n{head}{script}"]


def ours(*words: str | Path) -> list[str]:
    """The engine, in a process of its own."""
    return [sys.executable, "-m", "tests.benchmarks.ours", *(str(word) for word in words)]


def hot(source: Path, work: Path) -> list[Method]:
    """Snapshots of one database, each brought to the disk."""
    out = work / "snapshot.db"
    paths = {"DATABASE": source, "OUT": out}
    return [
        Method("ours", ours("hot", source, out), out),
        Method("cp + fsync", shell('cp "$DATABASE" "$OUT" && sync "$OUT"', **paths), out),
        Method("Python backup API, one step", ours("one-step", source, out), out),
        Method(
            "VACUUM INTO", shell('sqlite3 "file:$DATABASE?mode=ro" "VACUUM INTO \'$OUT\'" && sync "$OUT"', **paths), out
        ),
        Method(
            "sqlite3 .backup",
            shell('sqlite3 "$DATABASE" ".timeout 5000" ".backup \'$OUT\'" && sync "$OUT"', **paths),
            out,
            once=True,
        ),
    ]


def steps(source: Path, work: Path, level: int, recipient: str) -> list[Method]:
    """The single steps of a generation, by plain tools: they tell what the time of a whole one is made of."""
    check = 'test "$(sqlite3 "file:$DATABASE?immutable=1" "PRAGMA integrity_check")" = ok'
    compress = f'zstd -q -c -{level} -T2 < "$DATABASE" > /dev/null'
    scripts = {
        "cp": 'cp "$DATABASE" "$OUT"',
        "integrity_check": check,
        "quick_check": check.replace("integrity", "quick"),
        "SHA-256 by openssl": 'openssl dgst -sha256 "$DATABASE"',
        "SHA-256 by sha256sum": 'sha256sum "$DATABASE"',
        f"zstd -{level} -T2": compress,
        f"zstd -{level} -T2 | age": compress.replace(">", '| age -r "$RECIPIENT" >'),
        "zstd -3": compress.replace(f"-{level} -T2", "-3"),
        f"zstd -{level} -T2 beside integrity_check": f"{compress} &\n{check} && wait $!",
    }
    out = work / "snapshot.db"
    return [
        Method(name, shell(script, DATABASE=source, OUT=out, RECIPIENT=recipient), out, quiet=True)
        for name, script in scripts.items()
    ]


class Generations:
    """Whole backups of one database: a small service around it, and a repository for each peer."""

    def __init__(self, source: Path, work: Path) -> None:
        self.source = source
        self.work = work
        importlib.import_module("tests.conftest")  # registers the engine as `fluxmaint`
        self.world: World = build(work / "service", rows=1)
        document = self.world.document
        document["databases"][0].update(path=str(source), tables={"trades": ["id", "timestamp", "pnl"]})
        self.world.config()
        self.executable = work / "fluxmaint"
        self.executable.write_bytes(executable())
        (work / "password").write_text("bench\n", encoding="utf-8")
        self.recipient = (self.world.keys / "recipients.txt").read_text(encoding="utf-8").splitlines()[1]
        self.identity = self.world.keys / "operator.key"
        self.restic = {"RESTIC_PASSWORD_FILE": str(work / "password"), "RESTIC_CACHE_DIR": str(work / "restic-cache")}
        self.restic["RESTIC_REPOSITORY"] = str(work / "restic")
        self.borg = {"BORG_PASSPHRASE": "bench", "BORG_BASE_DIR": str(work / "borg-base")}
        self.borg["BORG_REPO"] = str(work / "borg")

    def create(self, level: int) -> list[Method]:
        """A first backup, or the next one when the outputs are kept."""
        source, work = self.source, self.work
        limit: dict[str, Path | str] = {"DATABASE": source, "OUT": work / "limit.zst.age", "RECIPIENT": self.recipient}
        tuned = {**limit, "OUT": work / "tuned.zst.age"}
        by_hand = {**limit, "OUT": work / "hand.age", "COPY": work / "copy.db"}
        guide = {"DATABASE": source, "BACKUPS": work / "guide", "REMOTE": work / "guide-remote"}
        guide["ENV_FILE"] = self.world.root / ".env"
        checked = {**self.restic, "RESTIC_REPOSITORY": str(work / "restic-checked")}
        config = str(self.world.config_file)
        backup = [sys.executable, "-I", str(self.executable), "backup", "--kind", "daily", "--json", "--config", config]
        return [
            Method("ours", backup, self.world.store, prepare=self._empty_ours),
            Method(OURS_QUIET, backup, self.world.store, prepare=self._empty_ours, quiet=True),
            Method("zstd | age > file", _pipeline("zstd -q -c", limit), work / "limit.zst.age"),
            Method(
                f"zstd -{level} -T2 | age > file", _pipeline(f"zstd -q -c -{level} -T2", tuned), work / "tuned.zst.age"
            ),
            Method(
                "cp, zstd | age > file beside integrity_check, digests; nobody writes",
                shell(_PROVEN_BY_HAND, FLAGS=f"-{level} -T2", **by_hand),
                work / "hand.age",
                quiet=True,
            ),
            Method(
                "restic",
                ["restic", "backup", "-q", str(source)],
                work / "restic",
                self.restic,
                lambda: _quietly(["restic", "init"], self.restic),
            ),
            Method(
                "a copy to restic beside integrity_check; nobody writes",
                shell(_CHECKED_RESTIC, DATABASE=source, COPY=work / "copy.db"),
                work / "restic-checked",
                checked,
                lambda: _quietly(["restic", "init"], checked),
                quiet=True,
            ),
            Method(
                "borg zstd,3",
                # Status 1 is a warning: the file changed while it was read.
                shell(
                    'borg create --compression zstd,3 "::$(date +%s.%N)" "$DATABASE" || test $? -eq 1', DATABASE=source
                ),
                work / "borg",
                self.borg,
                self._init_borg,
            ),
            Method(
                "guide's script, nobody writes",
                shell(_GUIDE_BACKUP, **guide),
                work / "guide",
                prepare=self._empty_guide,
                quiet=True,
            ),
            Method(
                "guide's script", shell(_GUIDE_BACKUP, **guide), work / "guide", prepare=self._empty_guide, once=True
            ),
        ]

    def restore(self) -> list[Method]:
        """Back to a database that passes SQLite's check; the backups are there already."""
        work = self.work
        out = work / "restored"
        database = out / "trades.db"
        keys = {"IDENTITY": self.identity, "OUT": out, "FILE": database, "BACKUP": work / "limit.zst.age"}
        limit = 'mkdir "$OUT"\nage -d -i "$IDENTITY" "$BACKUP" | zstd -q -d -c > "$FILE" && sync "$FILE" &&'
        found = f"{out}{self.source}"
        restic = 'restic restore -q latest --target "$OUT" &&'
        borg = 'mkdir "$OUT" && cd "$OUT" && borg extract ::$(borg list --last 1 --format "{archive}") &&'
        guide = {"BACKUPS": work / "guide", "OUT": out, "FILE": database}
        return [
            Method("ours", ours("restore", self.world.config_file, self.world.keys, out), out),
            Method("age -d | zstd -d + fsync + check", shell(limit + _CHECK, **keys), out),
            Method("restic + check", shell(restic + _CHECK, OUT=out, FILE=found), out, self.restic),
            Method("borg + check", shell(borg + _CHECK, OUT=out, FILE=found), out, self.borg),
            Method("guide's script, no check", shell('mkdir "$OUT"\n' + _GUIDE_RESTORE, **guide), out),
        ]

    def _empty_ours(self) -> None:
        """A target and a host that know of no earlier generation."""
        for directory in (self.world.store, self.world.top / "state", self.world.top / "run"):
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
        (self.world.store / ".fluxmaint-target").touch()

    def _empty_guide(self) -> None:
        for name in ("guide", "guide-remote"):
            shutil.rmtree(self.work / name, ignore_errors=True)
            (self.work / name).mkdir()

    def _init_borg(self) -> None:
        _quietly(["borg", "init", "-e", "repokey-blake2"], self.borg)


def _pipeline(zstd: str, variables: dict[str, Path | str]) -> list[str]:
    return shell(f'{zstd} < "$DATABASE" | age -r "$RECIPIENT" > "$OUT" && sync "$OUT"', **variables)


def _quietly(command: Sequence[str], environment: dict[str, str]) -> None:
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **environment})


def executable() -> bytes:
    """The program `fluxmaint` as hosts get it."""
    spec = importlib.util.spec_from_file_location("executable", ROOT / "plugins/plugin_utils/executable.py")
    if spec is None or spec.loader is None:
        raise RuntimeError("the builder of the executable is missing")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    content: bytes = module.build()
    return content


def size_of(path: Path) -> int:
    """Bytes of a file, or of everything below a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink())


def remove(path: Path) -> None:
    """Remove a file or a directory, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def versions() -> dict[str, str]:
    """What each tool says about itself, and on what it ran; no name of the machine."""
    import sqlite3

    asked = {"restic": ["restic", "version"], "borg": ["borg", "--version"], "age": ["age", "--version"]}
    asked.update({"zstd": ["zstd", "--version"], "sqlite3": ["sqlite3", "--version"]})
    asked["openssl"] = ["openssl", "version"]
    found = {"python": sys.version.split()[0], "python-sqlite": sqlite3.sqlite_version}
    found["kernel"] = ".".join(os.uname().release.split(".")[:2])
    found["processors"] = str(os.cpu_count())
    found["memory"] = f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / (1 << 30):.0f} GiB"
    for name, command in asked.items():
        said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
        found[name] = said[0][:60] if said else "missing"
    return found
