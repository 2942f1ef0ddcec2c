# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold after every fault, whatever it was.

1. The service's data is untouched (a restore's tests say: or exactly one proven state).
2. The newest proven generation still restores, from every target that held it and answers: fetched and checked.
3. Nothing is reported as success that is not: exit code, result, journal and targets agree.
4. No secret is in any output, journal, evidence, argument or environment of a child.
5. After the next run nothing lies around in plain: not in staging, temporary files, state or a target.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fluxmaint.backup import generation, layout, proof
from fluxmaint.core.errors import EngineError, StoreError
from fluxmaint.core.journal import Journal
from fluxmaint.store.base import Version

from tests.faults.scene import PLAIN, Ran, Scene

RESULTS = {0: "ok", 3: "degraded"}


class Invariants:
    """Watches over one scene. `watch` when its data has been changed on purpose, `hold` after each fault."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._proven: dict[str, dict[str, Any]] = {}  # target -> id and content of its newest proven generation
        self._data: dict[str, str] = {}
        self.watch()

    def watch(self, *, proofs: bool = True) -> None:
        """The service's data is now as it has to stay; remember the newest proven generation of each target."""
        self._data = self._digests()
        if not proofs:
            return
        for target in self.scene.targets:
            found = self._newest_proven(target["name"])
            if found:
                rows, env = self.scene.fetched(target["name"], found)
                self._proven[target["name"]] = {"id": found, "rows": rows, "env": env}

    def hold(self, *ran: Ran, away: tuple[str, ...] = ()) -> None:
        """Everything at once, after these commands. Targets that are `away` cannot be asked."""
        assert self._proven, "nothing is proven, so that losing it would not be noticed"
        self.data_is_untouched()
        self.newest_proven_restores(away)
        for one in ran:
            self.nothing_is_falsely_a_success(one, away)
        self.committed_is_whole(away)
        self.no_secret_is_seen()

    def hold_after_next_run(self, *ran: Ran, away: tuple[str, ...] = ()) -> None:
        """The same, and everything that a fault had left is gone."""
        self.hold(*ran, away=away)
        self.nothing_lies_around_in_plain()

    # ---- 1

    def data_is_untouched(self) -> None:
        now = self._digests()
        assert now == self._data, sorted(set(now.items()) ^ set(self._data.items()))

    def _digests(self) -> dict[str, str]:
        found = {}
        for path in _files(self.scene.world.root):
            # An index that readers make, or a log that a reader has begun on a full disk: never data.
            if not path.name.endswith("-shm") and not (path.name.endswith("-wal") and path.stat().st_size == 0):
                mode = path.lstat().st_mode
                found[str(path)] = f"{mode:o} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        return found

    # ---- 2

    def newest_proven_restores(self, away: tuple[str, ...] = ()) -> None:
        configured = {target["name"] for target in self.scene.targets}
        for target, known in self._proven.items():
            if target in away or target not in configured:
                continue
            newest = self._newest_proven(target)
            assert newest >= known["id"], f"{target} has lost its newest proven generation {known['id']}"
            rows, env = self.scene.fetched(target, known["id"])
            assert (rows, env) == (known["rows"], known["env"])
            if newest != known["id"]:
                self.scene.fetched(target, newest)

    def _newest_proven(self, target: str) -> str:
        try:
            store = self.scene.store(target)
            store.check()
        except EngineError:
            return ""
        signers = self.scene.world.keys / "allowed_signers"
        for item in generation.list_generations(store, "fluxhero", "production"):
            said = item.state == "committed" and item.proven_by
            if said and proof.verified(store, "fluxhero", "production", item.id, allowed_signers_file=signers):
                return item.id
        return ""

    # ---- 3

    def nothing_is_falsely_a_success(self, ran: Ran, away: tuple[str, ...] = ()) -> None:
        operation = str(ran.argv[0])
        if ran.killed:
            return  # what it had committed is looked at by `committed_is_whole`
        ends = [entry for entry in self._journal(operation, ran) if entry["event"] == "end"]
        assert ran.out or ran.code == 2, f"exit code {ran.code} without a word: {ran.err}"
        said = ran.result
        assert "Traceback" not in ran.err
        if operation == "backup":
            self._backup_is_true(ran, said, ends, away)
        elif operation == "prove" and ran.code == 0:
            assert said["result"] == "proven" and ends[-1]["result"] == "ok"
            assert ends[-1]["generation"] == said["generation"]
        elif operation in ("prune", "verify") and ran.code in RESULTS:
            assert ends[-1]["result"] == said["result"] == RESULTS[ran.code]
        elif ran.code not in RESULTS:
            assert said["error"] and said["message"]
        if ran.code not in RESULTS and ends and said["error"] != "LeaseError":
            assert ends[-1]["result"] == "failed" or "error" in said, "the journal tells of a success"

    def _backup_is_true(
        self, ran: Ran, said: dict[str, Any], ends: list[dict[str, Any]], away: tuple[str, ...]
    ) -> None:
        if ran.code not in RESULTS:
            assert said.get("result") not in ("ok", "degraded")
            assert said["error"] and said["message"]
            return
        told = [entry for entry in ends if entry.get("id") == said["id"]]
        assert [entry["result"] for entry in told] == [said["result"]] == [RESULTS[ran.code]]
        assert told[0]["targets"] == said["targets"]
        assert set(said["targets"]) == {target["name"] for target in self.scene.targets}
        assert (said["result"] == "degraded") == bool(said["errors"] or said["problems"])
        for name, state in said["targets"].items():
            assert state in ("stored", "failed")
            assert state == "stored" or name in said["errors"]
        everything = [(said["id"], said["targets"]), *said["caught_up"].items()]
        for identity, states in everything:
            for name, state in states.items():
                if state == "stored" and name not in away:
                    self._require_whole(name, identity, self._objects(name)[identity])

    def committed_is_whole(self, away: tuple[str, ...] = ()) -> None:
        """Whatever a target calls committed can be fetched, and passes every check; also after a kill."""
        for target in self.scene.targets:
            if target["name"] in away:
                continue
            try:
                listed = self._objects(target["name"])
            except StoreError:
                continue
            for identity, objects in listed.items():
                if any(item.key.endswith(f"/{layout.COMMIT}") and not item.marker for item in objects):
                    self._require_whole(target["name"], identity, objects)
        for file in (self.scene.journal, self.scene.verifier_journal):
            if file.exists():
                Journal(file).verify()

    def _objects(self, target: str) -> dict[str, list[Version]]:
        """What a target holds of each generation."""
        prefix = layout.generations("fluxhero", "production")
        found: dict[str, list[Version]] = {}
        for item in self.scene.store(target).versions(prefix):
            found.setdefault(item.key[len(prefix) :].partition("/")[0], []).append(item)
        return found

    def _require_whole(self, target: str, identity: str, objects: list[Version]) -> None:
        """Fetch it, unless that was done in this scene and every object is still the one that it was."""
        state = (target, identity, tuple(objects))
        if state not in self.scene.whole:
            self.scene.fetched(target, identity)
            self.scene.whole.add(state)

    def _journal(self, operation: str, ran: Ran | None = None) -> list[dict[str, Any]]:
        """What the journal says of an operation: of the host that ran it, or else of the one that usually does."""
        file = self.scene.verifier_journal if operation == "prove" else self.scene.journal
        if ran is not None and operation == "verify":
            config = Path(ran.argv[ran.argv.index("--config") + 1])
            file = Path(json.loads(config.read_text())["state_dir"]) / "journal.jsonl"
        return Journal(file).read(operation) if file.exists() else []

    # ---- 4

    def no_secret_is_seen(self) -> None:
        secrets = {**self.scene.secrets(), "a row of the database": PLAIN}
        for ran in self.scene.said:
            seen = [ran.out, ran.err]
            for child in ran.children:
                seen += [*child["argv"], *child["environ"].values()]
            for what, secret in secrets.items():
                assert not any(secret in text for text in seen), f"{what} is seen in {ran.argv}: {ran.out}{ran.err}"
        self.scene.said.clear()
        top = self.scene.world.top
        kept = [self.scene.journal, self.scene.world.config_file, *_files(top / "state/evidence"), *_files(top / "run")]
        kept += [self.scene.verifier_journal, *_files(self.scene.verifier / "evidence")]
        _require_nowhere(secrets, kept)

    # ---- 5

    def nothing_lies_around_in_plain(self) -> None:
        world = self.scene.world
        secrets = {**self.scene.secrets(), "a row of the database": PLAIN}
        private = (str(world.root), str(world.keys))
        found = [path for path in _files(world.top) if not str(path).startswith(private)]
        _require_nowhere(secrets, found)
        left = [path for path in _files(self.scene.staging) if not _is_staged(path)]
        assert left == [], "plain files in staging"


def _is_staged(path: Path) -> bool:
    known = ("MANIFEST.json", "MANIFEST.json.sig", "RESTORE.txt", "state.json")
    return path.suffix == ".age" or path.name in known


def _files(top: Path) -> Iterator[Path]:
    for directory, _names, names in os.walk(top):
        for name in names:
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink():
                yield path


def _require_nowhere(secrets: dict[str, str], paths: list[Path]) -> None:
    for path in paths:
        if not path.exists():
            continue
        content = path.read_bytes()
        for what, secret in secrets.items():
            assert secret.encode() not in content, f"{what} is in {path}"
