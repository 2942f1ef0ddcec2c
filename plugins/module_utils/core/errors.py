# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception tree of the engine.

Every error names what failed, on which file or object, what was left untouched and what to do next.
Modules turn an `EngineError` into `fail_json`, the command line into a message and an exit code.
"""

from __future__ import annotations

from typing import Any


class EngineError(Exception):
    """An operation of the engine failed.

    Args:
        message: what failed and why, one sentence without a final full stop.
        subject: the file, object key, unit or host that the error is about.
        untouched: what was left as it was.
        remedy: what the operator can do next.
        facts: further JSON-serialisable evidence; never a secret.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, subject: str = "", untouched: str = "", remedy: str = "", **facts: Any
    ) -> None:
        super().__init__(message)
        self.message = message
        self.subject = subject
        self.untouched = untouched
        self.remedy = remedy
        self.facts = facts

    def __str__(self) -> str:
        head = f"{self.subject}: {self.message}" if self.subject and self.subject not in self.message else self.message
        parts = [head]
        if self.untouched:
            parts.append(f"left untouched: {self.untouched}")
        if self.remedy:
            parts.append(self.remedy)
        return ". ".join(part.rstrip(".") for part in parts)

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON-serialisable data, for module results, the journal and `--json`."""
        return {
            "error": type(self).__name__,
            "message": self.message,
            "subject": self.subject,
            "untouched": self.untouched,
            "remedy": self.remedy,
            **self.facts,
        }


class ConfigError(EngineError):
    """The configuration is missing or wrong; all mistakes are listed at once."""

    exit_code = 2


class InputError(EngineError):
    """An argument or input file is not what it should be."""

    exit_code = 2


class LeaseError(EngineError):
    """Another operation holds the lease of this host."""

    exit_code = 4


class IntegrityError(EngineError):
    """Data is damaged, incomplete, or not the data it claims to be."""

    exit_code = 5


class StoreError(EngineError):
    """A backup target could not be reached or refused an operation."""

    exit_code = 6


class TimeoutExceeded(EngineError):
    """An operation did not finish within its deadline."""

    exit_code = 7


class CommandError(EngineError):
    """An external command failed."""


class PreconditionError(EngineError):
    """Something that must be in place before the operation is not."""


def as_engine_error(error: Exception) -> EngineError:
    """The engine's error for one that nobody foresaw, so that people and programs get one sentence, not a traceback.

    What the system refuses names the file; anything else names the line of the engine that has a defect.
    """
    if isinstance(error, EngineError):
        return error
    if isinstance(error, OSError) and error.strerror:
        return PreconditionError(error.strerror, subject=str(error.filename or ""), errno=error.errno)
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
    return EngineError(
        f"unexpected {type(error).__name__}: {error!s:.500}",
        subject=where,
        remedy="this is a defect of fluxmaint: please report it with this line",
    )
