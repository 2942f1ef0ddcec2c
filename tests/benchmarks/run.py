# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure and report: `make bench`, or parts of it.

    BENCH_CASES=hot,steps,generation,restore,logs  BENCH_SIZES=100MB,500MB,2.4GB  BENCH_JOURNALS=rollback,wal
    BENCH_LOG_SIZES=100MB,1GB           sizes of logs
    BENCH_ROUNDS=3                      rounds of each case
    BENCH_METHODS=ours,restic           methods whose name begins so
    BENCH_DOCS=1                        copy the report to docs/benchmarks.md and docs/benchmarks.svg

Results of parts are merged into `.lab/bench/results.json`; a group (case, size, journal mode) comes from one run.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.lab import engine, names
from tests.lab.steps import SetupError, say, step

from . import data, logs, measure, methods, report

BENCH = names.LAB / "bench"
_LEVEL = 1
# Databases of these sizes are measured as a whole backup in these journal modes.
_WHOLE = {"100MB": ("rollback",), "500MB": ("rollback", "wal"), "2.4GB": ("rollback",)}
_ROUNDS = {"100MB": 5, "500MB": 5, "1GB": 3, "2.4GB": 3}
# A method that has not ended by then counts as one that does not end; those known for it get less.
_LIMIT_S = 600.0
_HOPELESS_S = {"100MB": 10.0, "500MB": 15.0, "2.4GB": 60.0}


def main() -> int:
    """Run what the environment asks for; return the exit code."""
    started = time.monotonic()
    try:
        ensure_tools()
        results = Bench().run()
    except SetupError as error:
        say(f"Stopped: {error}")
        return 1
    text = publish(results)
    say(report.table(results))
    say(report.goals_text(report.judge(results)))
    say(f"{text}; {time.monotonic() - started:.0f} s in all")
    return 0


def ensure_tools() -> None:
    """Install what is compared, or say how."""
    missing = sorted(package for tool, package in methods.PACKAGES.items() if shutil.which(tool) is None)
    if missing and not engine.may_install():
        raise SetupError(f"not installed: {', '.join(missing)}. On Debian: sudo apt-get install {' '.join(missing)}")
    if missing:
        with step(f"Installing {', '.join(missing)}"):
            engine.apt_install(*missing)


def publish(results: Sequence[report.Result]) -> str:
    """Write the results and the report."""
    BENCH.mkdir(parents=True, exist_ok=True)
    (BENCH / "results.json").write_text(json.dumps(list(results), indent=1) + "\n", encoding="utf-8")
    page = report.document(results, methods.versions())
    directories = [BENCH] + ([names.ROOT / "docs"] if os.environ.get("BENCH_DOCS") else [])
    for directory in directories:
        (directory / "benchmarks.md").write_text(page, encoding="utf-8")
        (directory / "benchmarks.svg").write_text(report.drawing(results), encoding="utf-8")
    return ", ".join(str(directory / "benchmarks.md") for directory in directories)


def _chosen(variable: str, known: Sequence[str]) -> list[str]:
    wanted = [word for word in os.environ.get(variable, "").split(",") if word] or list(known)
    unknown = sorted(set(wanted) - set(known))
    if unknown:
        raise SetupError(f"{variable} names {', '.join(unknown)}; there are {', '.join(known)}")
    return [word for word in known if word in wanted]


class Bench:
    """One run."""

    def __init__(self) -> None:
        self.cases = _chosen("BENCH_CASES", ("hot", "steps", "generation", "restore", "logs"))
        self.sizes = _chosen("BENCH_SIZES", tuple(data.SIZES))
        self.log_sizes = _chosen("BENCH_LOG_SIZES", tuple(logs.SIZES))
        self.journals = _chosen("BENCH_JOURNALS", data.JOURNALS)
        self.rounds = int(os.environ.get("BENCH_ROUNDS", "0"))
        self.only = tuple(word for word in os.environ.get("BENCH_METHODS", "").split(",") if word)
        self.tools = methods.versions()
        file = BENCH / "results.json"
        self.results: list[report.Result] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []

    def run(self) -> list[report.Result]:
        """Every case that was asked for; results are on the disk after each."""
        for size in self.sizes:
            for journal in self.journals:
                whole = journal in _WHOLE[size] and ("generation" in self.cases or "restore" in self.cases)
                if not whole and not {"hot", "steps"} & set(self.cases):
                    continue
                with step(f"The database of {size}, {journal}"):
                    source = data.ensure(BENCH / "data", size, journal)
                with tempfile.TemporaryDirectory(prefix="work-", dir=BENCH) as directory:
                    self._database(source, Path(directory), whole)
        for size in self.log_sizes if "logs" in self.cases else ():
            with step(f"The log of {size}"):
                log = logs.ensure(BENCH / "data", size)
            with tempfile.TemporaryDirectory(prefix="work-", dir=BENCH) as directory:
                self._logs(data.Source(size, "", log), Path(directory))
        return self.results

    def _logs(self, source: data.Source, work: Path) -> None:
        host = logs.Logs(source.path, work)
        self._group("logs", source, host.log, work, host.whole())
        host.remember()
        self._group("logs-again", source, host.log, work, host.again())

    def _database(self, source: data.Source, work: Path, whole: bool) -> None:
        database = work / "trades.db"
        shutil.copyfile(source.path, database)
        if "hot" in self.cases:
            idle = methods.Method("no backup", ["sleep", "3"], work / "nothing")
            self._group("hot", source, database, work, [*methods.hot(database, work), idle])
        generations = methods.Generations(database, work)
        if "steps" in self.cases:
            steps = methods.steps(database, work, _LEVEL, generations.recipient)
            self._group("steps", source, database, work, steps)
        if not whole:
            return
        create = generations.create(_LEVEL)
        if "generation" in self.cases:
            self._group("generation", source, database, work, create)
        data.day_of_changes(database)
        again = [
            replace(method, once=True, quiet=True, prepare=None)
            for method in create
            if not method.once and method.name != methods.OURS_QUIET
        ]
        fresh = "generation" not in self.cases
        if fresh:  # only to have something to restore
            for method in create:
                method.prepare_now()
        self._group("generation-day", source, database, work, again, keep=True, record=not fresh)
        if "restore" in self.cases:
            self._group("restore", source, database, work, generations.restore())

    def _group(
        self,
        case: str,
        source: data.Source,
        database: Path,
        work: Path,
        candidates: Sequence[methods.Method],
        *,
        keep: bool = False,
        record: bool = True,
    ) -> None:
        """Measure methods in turn. With `keep`, what they made before stays and only what is new counts."""
        chosen = [item for item in candidates if not self.only or item.name.startswith(self.only)]
        rounds = self.rounds or _ROUNDS[source.size]
        samples: dict[str, list[measure.Sample]] = {item.name: [] for item in chosen}
        for number in range(1 if keep else rounds):
            for method in chosen if number % 2 == 0 else reversed(chosen):
                hopeless = method.once and not method.quiet
                if hopeless and number > 0:
                    continue
                sample = self._one(source, database, work, method, keep, hopeless)
                samples[method.name].append(sample)
                said = "" if sample.finished else f"  did not finish: {sample.said[-200:]}"
                say(f"    {case} {source.size} {source.journal}, {method.name}: {sample.seconds:.2f} s{said}")
        measured = [self._result(case, source, method, samples[method.name]) for method in chosen]
        if record and measured:
            self.results = report.merge(self.results, measured)
            publish(self.results)

    def _one(
        self, source: data.Source, database: Path, work: Path, method: methods.Method, keep: bool, hopeless: bool
    ) -> measure.Sample:
        before = methods.size_of(method.output) if keep and method.output.exists() else 0
        single_file = method.output.suffix == ".age"
        if not keep:
            methods.remove(method.output)
            method.prepare_now()
        measure.fill_page_cache(BENCH / "data" / "nothing")
        measure.warm(database)
        sample = measure.run(
            method.command,
            database=None if method.quiet else database,
            scratch=work,
            limit_s=_HOPELESS_S[source.size] if hopeless else _LIMIT_S,
            environment=method.environment,
        )
        size = methods.size_of(method.output) if method.output.exists() else 0
        sample = replace(sample, bytes_out=size if single_file else size - before)
        if method.output.name in ("snapshot.db", "restored"):
            methods.remove(method.output)
        return sample

    def _result(
        self, case: str, source: data.Source, method: methods.Method, samples: Sequence[measure.Sample]
    ) -> dict[str, Any]:
        failed = next((sample.said for sample in samples if not sample.finished), "")
        return {
            "case": case,
            "size": source.size,
            "journal": source.journal,
            "size_bytes": source.path.stat().st_size,
            "writer": not method.quiet,
            "page_cache_filled": True,
            **report.summarise(method.name, samples),
            "said": failed[-200:],
            "tools": self.tools,
        }


if __name__ == "__main__":
    sys.exit(main())
