# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make test`: run every step, go on after failures, and end with the totals.

Steps that only compute, the roles' scenarios and the tests of the drill run two at a time: their hosts differ.
The drill runs last and alone, because it measures time.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import deployed, hosts, names, sample, scenarios
from .results import Count, judged, junit_count
from .steps import SetupError, say, tail

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

JUNIT = names.LOGS / "junit"
STATIC = ("ruff", "mypy", "yamllint", "ansible-lint")
COMPUTING = (*STATIC, "sanity", "unit", "integration", "faults", "sample")
ALL = (*COMPUTING, "molecule", "sabotage", "drill")
FAILURE_LINES = 40

_output = threading.Lock()
# Process groups of the commands that run now, and whether no other may start: tests were interrupted.
_running: set[int] = set()
_interrupted = threading.Event()


@dataclass(frozen=True)
class Result:
    """One row of the summary."""

    name: str
    count: Count
    duration_s: float


@dataclass
class Runner:
    """Runs commands as steps and keeps their results."""

    results: list[Result]

    def step(
        self,
        name: str,
        argv: Sequence[str | Path],
        *,
        reports: Callable[[], list[Path]] | None = None,
        cwd: Path = names.ROOT,
        env: dict[str, str] | None = None,
        timeout_s: float = 900,
        prepare: Callable[[], None] | None = None,
    ) -> bool:
        """Run one command with its own log; return whether it passed.

        `reports` lists the JUnit reports that it wrote; without it the command is one test by itself. `prepare` comes
        first and may raise SetupError: the step has then failed.
        """
        log = names.LOGS / f"test-{name.replace(' ', '-')}.log"
        with _output:
            say(f"--> {name}")
        started = time.monotonic()
        try:
            if prepare:
                prepare()
        except SetupError as exc:
            log.write_text(f"{exc}\n", encoding="utf-8")
            return self.add(name, Count(failed=1), time.monotonic() - started, log)
        code = execute(argv, log, cwd=cwd, env={**environment(), **(env or {})}, timeout_s=timeout_s)
        duration_s = time.monotonic() - started
        count = judged(junit_count(reports()) if reports else None, code)
        return self.add(name, count, duration_s, log)

    def add(self, name: str, count: Count, duration_s: float, log: Path) -> bool:
        """Record and print a result, with the end of the log when it is a failure."""
        self.results.append(Result(name, count, duration_s))
        with _output:
            say(f"    {'FAILED' if count.failed else 'ok'}: {name}: {count} in {duration_s:.1f} s")
            if count.failed:
                say(f"    end of {log}:\n{tail(log, FAILURE_LINES)}\n")
        return not count.failed

    def pytest(self, name: str, *arguments: str) -> bool:
        """Run pytest under the project's environment."""
        report = JUNIT / f"{name}.xml"
        argv = [names.bin_path("pytest"), f"--junitxml={report}", "--numprocesses=2", *arguments]
        return self.step(name, argv, reports=lambda: [report], timeout_s=2400)


def environment() -> dict[str, str]:
    """The environment of all steps: the project's tools first, and nothing of the user's that would leak in."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE_", "MOLECULE_"))}
    # An own certificate bundle makes some S3 clients fail over plain HTTP.
    env.pop("AWS_CA_BUNDLE", None)
    env["PATH"] = f"{names.VENV / 'bin'}{os.pathsep}{env['PATH']}"
    env["ANSIBLE_CONFIG"] = str(names.ROOT / "ansible.cfg")
    env["ANSIBLE_COLLECTIONS_PATH"] = str(names.COLLECTIONS)
    env["NO_COLOR"] = "1"
    env["PY_COLORS"] = "0"
    return env


def execute(argv: Sequence[str | Path], log: Path, *, cwd: Path, env: dict[str, str], timeout_s: float) -> int:
    """Run a command into its log; kill it with all its children when it takes too long. Returns its exit code."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(word) for word in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
        )
        _running.add(process.pid)
        try:
            if _interrupted.is_set():
                end_running()
            return process.wait(timeout=timeout_s)
        except BaseException as exc:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if not isinstance(exc, subprocess.TimeoutExpired):
                raise
            output.write(f"\nkilled: it took longer than {timeout_s:.0f} s\n".encode())
            return -signal.SIGKILL
        finally:
            _running.discard(process.pid)


def side_by_side(lanes: Sequence[Callable[[], None]], at_once: int = 2) -> None:
    """Run them in threads. Ctrl-C ends what they run, which has sessions of its own and does not get it."""
    with ThreadPoolExecutor(max_workers=at_once) as pool:
        try:
            for job in [pool.submit(lane) for lane in lanes]:
                job.result()
        except BaseException:
            end_running()
            raise


def end_running() -> None:
    """Kill the commands that run, with all their children, and each one that starts from now on."""
    _interrupted.set()
    for group in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)


def run_static(runner: Runner, wanted: Sequence[str]) -> None:
    """The static checks that were chosen."""
    commands: dict[str, list[str | Path]] = {
        "ruff": ["ruff", "check", "."],
        "mypy": ["mypy", "--strict", "plugins/module_utils", "tests/lab"],
        "yamllint": ["yamllint", "--strict", "."],
        "ansible-lint": ["ansible-lint", "--offline", "--nocolor"],
    }
    for name in STATIC:
        if name in wanted:
            tool, *arguments = commands[name]
            runner.step(name, [names.bin_path(str(tool)), *arguments])


def run_sanity(runner: Runner) -> None:
    """ansible-test's sanity tests on a copy of the checkout."""
    output = names.LAB / "sanity" / "ansible_collections" / "fluxhero" / "maintenance" / "tests" / "output" / "junit"
    runner.step(
        "sanity",
        [names.PYTHON, "-m", "tests.lab.sanity", "--junit"],
        reports=lambda: sorted(output.glob("*.xml")),
        timeout_s=1200,
    )


def run_sample(runner: Runner) -> None:
    """The sample service's own tests, back end and front end, in an environment with its own dependencies."""
    started = time.monotonic()
    try:
        sample.ensure()
        node = sample.node()
    except SetupError as exc:
        say(str(exc))
        runner.add("sample", Count(failed=1), time.monotonic() - started, names.LOGS / f"{sample.LOG}.log")
        return
    report = JUNIT / "sample.xml"
    runner.step(
        "sample",
        [sample.PYTHON, "-m", "pytest", f"--junitxml={report}"],
        reports=lambda: [report],
        cwd=sample.SOURCE,
    )
    frontend = JUNIT / "sample-frontend.xml"
    runner.step(
        "sample front end",
        [
            *(node, "--test", "--test-reporter=spec", "--test-reporter-destination=stdout"),
            *("--test-reporter=junit", f"--test-reporter-destination={frontend}"),
            *sorted(sample.FRONTEND.glob("tests/*.test.mjs")),
        ],
        reports=lambda: [frontend],
        cwd=sample.FRONTEND,
    )


def run_computing(runner: Runner, wanted: Sequence[str]) -> None:
    """Everything that needs no hosts."""
    run_static(runner, wanted)
    if "unit" in wanted:
        runner.pytest("unit", "tests/unit")
    if "sanity" in wanted:
        run_sanity(runner)
    if "integration" in wanted:
        runner.pytest("integration", "tests/integration")
    if "faults" in wanted:
        runner.pytest("faults", "tests/faults")
    if "sample" in wanted:
        run_sample(runner)


def run_molecule(runner: Runner, chosen: Sequence[str]) -> None:
    """The roles' scenarios, one after the other, each on new hosts: bare ones, or with the service deployed."""
    started = time.monotonic()
    order = [name for name in scenarios.discover() if not chosen or name in chosen]
    unknown = sorted(set(chosen) - set(order))
    bare = scenarios.prepared_roles(deployed.PLAYBOOK)
    log = names.LOGS / "hosts-create.log"
    try:
        if unknown or not order:
            raise SetupError(f"No such scenario: {', '.join(unknown)}" if unknown else "There are no scenarios")
        hosts.create(["store"])
    except SetupError as exc:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as output:
            output.write(f"{exc}\n")
        runner.add("molecule hosts", Count(failed=1), time.monotonic() - started, log)
        return
    runner.add("molecule hosts", Count(passed=1), time.monotonic() - started, log)
    state = names.LAB / "molecule"
    shutil.rmtree(state, ignore_errors=True)
    passed = [run_scenario(runner, name, state, "" if name in bare else deployed.VARIANT) for name in order]
    if all(passed) and not chosen:
        hosts.destroy(hosts.ROLE_HOSTS)


def run_scenario(runner: Runner, name: str, state: Path, variant: str) -> bool:
    """One scenario on new hosts of a variant of their images: prepare, check mode, converge, idempotence, verify."""
    forget_preparation(state / "state.yml")
    report = JUNIT / f"molecule-{name}.xml"
    return runner.step(
        f"molecule {name}",
        [
            *(names.bin_path("molecule"), "--base-config", names.ROOT / "molecule" / "config.yml"),
            *("test", "--scenario-name", name, "--destroy=never", "--no-command-borders"),
        ],
        reports=lambda: [report],
        prepare=lambda: renew(variant),
        env={
            "MOLECULE_GLOB": "molecule/*/molecule.yml",
            "MOLECULE_EPHEMERAL_DIRECTORY": str(state),
            "MOLECULE_PROJECT_DIRECTORY": str(names.ROOT),
            # Each host's tests in a process of their own: molecule/conftest.py.
            "PYTEST_ADDOPTS": "--numprocesses=2",
        },
        timeout_s=1200,
    )


def renew(variant: str) -> None:
    """New hosts of a variant of their images. Raises SetupError."""
    if variant:
        deployed.ensure()
    hosts.create(hosts.ROLE_HOSTS, fresh=True, variant=variant)


def forget_preparation(file: Path) -> None:
    """Molecule keeps one state for all scenarios that share hosts, and would prepare for the first one only."""
    if file.is_file():
        file.write_text(file.read_text(encoding="utf-8").replace("prepared: true", "prepared: false"), encoding="utf-8")


def run_sabotage(runner: Runner) -> None:
    """Damaged generations must be refused; leaves production and staging deployed for the drill."""
    report = JUNIT / "sabotage.xml"
    argv = [names.bin_path("pytest"), f"--junitxml={report}", "--timeout=900", "tests/drill"]
    runner.step("sabotage", argv, reports=lambda: [report], timeout_s=2400)


def run_drill(runner: Runner) -> None:
    """The drill, as `make drill` runs it."""
    runner.step("drill", [names.PYTHON, "-m", "tests.lab.drill"], timeout_s=1200)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog="make test", description=__doc__)
    parser.add_argument("--steps", default=",".join(ALL), help=f"comma-separated: lint, {', '.join(ALL)}")
    parser.add_argument("--scenarios", default="", help="comma-separated scenarios of Molecule; default: all")
    options = parser.parse_args()
    wanted = [step for name in options.steps.split(",") for step in (STATIC if name == "lint" else (name,))]
    unknown = sorted(set(wanted) - set(ALL))
    if unknown:
        parser.error(f"no such step: {', '.join(unknown)}")
    started = time.monotonic()
    shutil.rmtree(JUNIT, ignore_errors=True)
    JUNIT.mkdir(parents=True)
    runner = Runner([])
    chosen = [name for name in options.scenarios.split(",") if name]
    if "molecule" in wanted and not chosen:
        hosts.destroy(sorted(set(hosts.existing()) & set(hosts.KNOWN)))
    lanes: list[Callable[[], None]] = [lambda: run_computing(runner, wanted)]
    if "molecule" in wanted:
        lanes.append(lambda: run_molecule(runner, chosen))
    if "sabotage" in wanted:
        lanes.append(lambda: run_sabotage(runner))
    side_by_side(lanes)
    if "drill" in wanted:
        if "molecule" in wanted:
            hosts.destroy(hosts.ROLE_HOSTS)  # those of a scenario that failed would slow it down
        run_drill(runner)
    return summarise(runner.results, time.monotonic() - started)


def summarise(results: Sequence[Result], duration_s: float) -> int:
    """Print every step, every skipped test with its reason, and the totals; return the exit code."""
    say("")
    for result in results:
        verdict = "FAILED" if result.count.failed else "ok"
        say(f"{verdict:7} {result.name:24} {result.duration_s:7.1f} s  {result.count}")
    total = sum((result.count for result in results), Count())
    for reason in total.reasons:
        say(f"skipped {reason}")
    say(f"Everything took {duration_s:.0f} s; logs are in {names.LOGS}")
    say(str(total))
    return 1 if total.failed or not total.passed else 0


if __name__ == "__main__":
    sys.exit(main())
