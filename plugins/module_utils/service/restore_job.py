# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a restore so that it does not depend on who asked for it.

A `Job` is a request and the way to its keys. A `Launcher` runs it: in a transient systemd unit, which survives
the end of the SSH session that started it, or in this process where there is no systemd. Both lead to `execute`.
"""

from __future__ import annotations

import dataclasses
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..backup import restore, restore_point, salvage_source
from ..backup.restore_plan import Request
from ..backup.restore_source import StoreSource
from ..backup.restore_stage import Source
from ..core import errors
from ..core.clock import Clock
from ..core.config import DEFAULT_PATH, Config
from ..core.errors import EngineError, InputError, LeaseError
from ..core.fsio import atomic_write, read_json, write_json
from ..core.journal import Journal
from ..core.progress import Report
from ..core.run import run
from .units import SystemdService

EXECUTABLE = Path("/usr/local/bin/fluxmaint")
UNIT = "fluxmaint-restore.service"
_IDENTITY_PREFIX = "identity-"
_LONGEST_S = 24 * 3600.0


@dataclass(frozen=True)
class Job:
    """One restore to run.

    Attributes:
        request: what to restore.
        identity_file: age identity to decrypt with; None when the generation is staged already.
        remove_identity: remove that file as soon as it is not needed, or the restore has failed.
        allowed_signers_file: public keys of hosts; None means the configured file.
        signer: who must have signed; empty means the configured signer.
    """

    request: Request
    identity_file: Path | None = None
    remove_identity: bool = False
    allowed_signers_file: Path | None = None
    signer: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-serialisable form; names the identity file, never holds its content."""
        return {
            "request": self.request.as_dict(),
            "identity_file": str(self.identity_file) if self.identity_file else None,
            "remove_identity": self.remove_identity,
            "allowed_signers_file": str(self.allowed_signers_file) if self.allowed_signers_file else None,
            "signer": self.signer,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Job:
        """The reverse of `as_dict`."""
        identity, signers = data.get("identity_file"), data.get("allowed_signers_file")
        return cls(
            Request.from_dict(data["request"]),
            Path(identity) if identity else None,
            bool(data.get("remove_identity")),
            Path(signers) if signers else None,
            str(data.get("signer") or ""),
        )

    def source(self, config: Config, clock: Clock, progress: Report | None = None) -> Source | None:
        """Where to fetch from: a restore point, a salvage or a target; None on a host that has only what is staged."""
        if restore_point.is_point(self.request.generation):
            return restore_point.PointSource(config)
        if salvage_source.is_salvage(self.request.generation):
            return salvage_source.SalvageSource(config)
        if config.backup is None:
            return None
        return StoreSource(
            config,
            host=self.request.host or config.host,
            target=self.request.target,
            identity_file=self.identity_file,
            allowed_signers_file=self.allowed_signers_file,
            signer=self.signer,
            clock=clock,
            progress=progress,
        )


def keep_identity(config: Config, identity: str) -> Path:
    """Put an identity that the controller has sent into the run directory, which is not on a disk; mode 0600."""
    config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = config.run_dir / f"{_IDENTITY_PREFIX}{secrets.token_hex(8)}"
    atomic_write(path, identity.strip().encode() + b"\n", 0o600)
    return path


def _begun(progress: Report | None) -> restore.Progress:
    """What a restore tells of itself, as steps that begin."""

    def tell(event: str, name: str) -> None:
        if progress is not None and event == "begin":
            progress(name, {})

    return tell


def execute(config: Config, job: Job, *, clock: Clock | None = None, progress: Report | None = None) -> dict[str, Any]:
    """Run a job here and now. Returns and raises what `restore.run` does."""
    clock = clock or Clock()
    config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    return restore.run(
        config,
        job.request,
        source=job.source(config, clock, progress),
        service=SystemdService(config, clock=clock),
        clock=clock,
        journal=Journal(config.journal_file, clock),
        when_alone=lambda: _sweep_identities(config, job.identity_file),
        after_stage=lambda: _remove_identity(job),
        progress=_begun(progress),
    )


def resume(config: Config, *, clock: Clock | None = None, progress: Report | None = None) -> dict[str, Any] | None:
    """Finish or undo what a dead process has left, see `restore.resume`."""
    clock = clock or Clock()
    config.state_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
    return restore.resume(
        config,
        service=SystemdService(config, clock=clock),
        clock=clock,
        journal=Journal(config.journal_file, clock),
        when_alone=lambda: _sweep_identities(config, None),
        progress=_begun(progress),
    )


def preview(config: Config, job: Job, *, clock: Clock | None = None) -> dict[str, Any]:
    """What `execute` would do; changes nothing."""
    return restore.preview(config, job.request, source=job.source(config, clock or Clock()))


def _remove_identity(job: Job) -> None:
    if job.remove_identity and job.identity_file is not None:
        job.identity_file.unlink(missing_ok=True)


def _sweep_identities(config: Config, own: Path | None) -> None:
    """Remove what killed restores have left, half-written ones too; to be called while no other restore can run."""
    for pattern in (f"{_IDENTITY_PREFIX}*", f".{_IDENTITY_PREFIX}*"):
        for stale in config.run_dir.glob(pattern):
            if stale != own:
                stale.unlink(missing_ok=True)


class Launcher(Protocol):
    """Runs a job to its end."""

    def launch(self, config: Config, job: Job) -> dict[str, Any]:
        """Returns and raises what `execute` does."""


class InProcess:
    """Runs the job in this process."""

    def launch(self, config: Config, job: Job) -> dict[str, Any]:
        """Run and wait."""
        return execute(config, job)


@dataclass
class TransientUnit:
    """Runs the job as a systemd unit of its own; it goes on when this process or its session ends.

    The unit's answer comes back in a file of the run directory.
    """

    config_file: Path = DEFAULT_PATH
    executable: Path = EXECUTABLE
    runner: Callable[..., Any] = field(default=run)

    def launch(self, config: Config, job: Job) -> dict[str, Any]:
        """Start the unit and wait for its end. Raises LeaseError when another restore runs already."""
        state = self.runner(["systemctl", "is-active", UNIT], timeout_s=30, check=False).text.strip()
        if state in ("active", "activating"):
            raise LeaseError(
                "another restore is running", subject=UNIT, untouched="everything", remedy="wait for its end"
            )
        for stale in (*config.run_dir.glob("restore-job-*.json"), *config.run_dir.glob("restore-answer-*.json")):
            stale.unlink(missing_ok=True)  # of a caller that was killed
        token = secrets.token_hex(8)
        job_file = config.run_dir / f"restore-job-{token}.json"
        answer_file = config.run_dir / f"restore-answer-{token}.json"
        config.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        write_json(job_file, {**job.as_dict(), "answer_file": str(answer_file)})
        try:
            command = [str(self.executable), "restore", "--config", str(self.config_file), "--plan", str(job_file)]
            self.runner(
                ["systemd-run", f"--unit={UNIT}", "--collect", "--wait", "--quiet", "--", *command, "--json"],
                timeout_s=_LONGEST_S,
                check=False,
            )
            if not answer_file.exists():
                raise EngineError(
                    "the restore ended without an answer",
                    subject=UNIT,
                    remedy="see journalctl -u fluxmaint-restore; the next restore finishes or undoes this one",
                )
            return _answered(read_json(answer_file))
        finally:
            job_file.unlink(missing_ok=True)
            answer_file.unlink(missing_ok=True)


def run_job_file(
    config: Config, job_file: Path, *, clock: Clock | None = None, progress: Report | None = None
) -> dict[str, Any]:
    """Run the job of a file that `TransientUnit` has written, and leave the answer where it looks for it.

    Raises what `execute` raises, after the answer is written.
    """
    data = read_json(job_file)
    if not isinstance(data, dict) or "answer_file" not in data:
        raise InputError("is not a restore job", subject=str(job_file))
    answer_file = Path(data["answer_file"])
    try:
        result = execute(config, Job.from_dict(data), clock=clock, progress=progress)
    except Exception as error:
        write_json(answer_file, {"error": errors.as_engine_error(error).as_dict()})
        raise
    write_json(answer_file, {"result": result})
    return result


def _answered(answer: Mapping[str, Any]) -> dict[str, Any]:
    """The result, or the error raised again as the same class."""
    if "result" in answer:
        result: dict[str, Any] = answer["result"]
        return result
    described = dict(answer["error"])
    name = described.pop("error")
    kinds = [*vars(errors).values(), restore.RestoreFailed, restore.ConsentNeeded]
    known = {kind.__name__: kind for kind in kinds if isinstance(kind, type) and issubclass(kind, EngineError)}
    kind = known.get(name, EngineError)
    raise kind(described.pop("message"), **described)


def launch(config: Config, job: Job, launcher: Launcher, *, identity: str | None = None) -> dict[str, Any]:
    """Run a job with a launcher; an identity that comes as text is gone from the host afterwards."""
    if identity is None:
        return launcher.launch(config, job)
    path = keep_identity(config, identity)
    try:
        return launcher.launch(config, dataclasses.replace(job, identity_file=path, remove_identity=True))
    finally:
        path.unlink(missing_ok=True)


def diff(result: Mapping[str, Any]) -> dict[str, str]:
    """A result for Ansible's diff mode: files and their action, of configuration only the names of keys."""
    files = [file for file in result.get("files", []) if file["action"] != "keep"]
    before = [f"{file['path']}: present" for file in files if file["action"] == "replace"]
    after = [f"{file['path']}: from generation {result['generation_id']}" for file in files]
    for change in result.get("config_diff", []):
        for kind in ("added", "removed", "changed"):
            after += [f"{change['path']}: {key} is {kind}" for key in change.get(kind, [])]
    return {"before": "".join(f"{line}\n" for line in before), "after": "".join(f"{line}\n" for line in after)}


def choose_launcher(name: str, config_file: Path = DEFAULT_PATH) -> Launcher:
    """The launcher of that name: `systemd`, `inline`, or `auto`: systemd where it runs and fluxmaint is installed."""
    if name == "auto":
        name = "systemd" if Path("/run/systemd/system").is_dir() and os.access(EXECUTABLE, os.X_OK) else "inline"
    if name not in ("systemd", "inline"):
        raise InputError(f"{name!r} is not a way to run a restore: auto, systemd or inline")
    return TransientUnit(config_file) if name == "systemd" else InProcess()
