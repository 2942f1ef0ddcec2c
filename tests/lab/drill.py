# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""`make drill`: destroy the production host and watch the service come back on a bare one.

What counts is measured from outside the hosts and can be traced: each phase to its log, the data lost to two
samples of the database, the digests to the signed manifest in the off-site store.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, nullcontext
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import websockets

from . import hosts, names
from .drill_report import Phase, Report, Sample
from .offsite import SABOTAGES, Offsite, foreign_identity, tunnel
from .steps import SetupError, run, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

INVENTORY = names.ROOT / "inventories" / "lab"
EVIDENCE = names.LAB / "evidence"
INSTALLED = names.LAB / "installed"
FROM_ARTIFACT = {
    "ANSIBLE_COLLECTIONS_PATH": str(INSTALLED),
    # The logs show when each task began, so that a phase's seconds can be traced.
    "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
    "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
}
VERIFIER_KEY = names.KEYS / "age" / "verifier.key"
HALT_FILE = "/opt/fluxhero/data/HALT"
DATABASE = "/opt/fluxhero/data/trades.db"
BACKEND_PORT, FRONTEND_PORT, STORE_PORT = 8000, 3000, 8333
# Without these the logs fill the disk, and nobody reads them.
STARTED = ("fluxmaint-rotation", "fluxmaint-logs-read")
CARE = (*STARTED, "fluxmaint-log-report")
REPORTS = names.LAB / "reports"
OWN_SETTINGS = ("/backup.json", "/notify.json", "/verify.json")
RATE = 50
LOAD_S = 5
AFTER_BACKUP_S = 5

QUERY = """
import json, sqlite3, sys
con = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True, timeout=10)
print(json.dumps(con.execute(sys.argv[2]).fetchone()))
"""


class DrillError(Exception):
    """The drill cannot go on, or has found that something is not as it should be."""


def on_host(host: str, *argv: str, stdin: str = "") -> str:
    """Standard output of a command on a lab host. Raises DrillError when it fails."""
    words = ["ssh", "-F", str(names.SSH_CONFIG), host, *argv]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode != 0:
        raise DrillError(f"{' '.join(argv)} on {host} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout


def query(host: str, sql: str) -> list[Any]:
    """First row of a read-only query on a host's database."""
    row: list[Any] = json.loads(on_host(host, "python3", "-", DATABASE, f"'{sql}'", stdin=QUERY))
    return row


def sample(host: str) -> Sample:
    """The service's data at this moment. Raises DrillError when the heartbeat has gaps: they could hide a loss."""
    heartbeat, rows, trades = query(
        host, "SELECT (SELECT max(n) FROM heartbeat), (SELECT count(*) FROM heartbeat), (SELECT count(*) FROM trades)"
    )
    if heartbeat != rows:
        raise DrillError(f"the heartbeat on {host} has gaps: {rows} rows, last number {heartbeat}")
    return Sample(now(), heartbeat, trades)


def now() -> str:
    """The time in UTC, ISO 8601."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def install_collection() -> None:
    """Build the artifact and install it into an empty path: the drill runs what a user would run."""
    galaxy = names.bin_path("ansible-galaxy")
    run([galaxy, "collection", "build", "--force", "--output-path", names.LAB / "dist"], log="drill-build")
    shutil.rmtree(INSTALLED, ignore_errors=True)
    artifact = max((names.LAB / "dist").glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    run([galaxy, "collection", "install", "--no-deps", "-p", INSTALLED, artifact], log="drill-build", env=FROM_ARTIFACT)


def playbook(name: str, phase: Phase, **variables: Any) -> None:
    """Run a playbook of the collection against the lab. Raises DrillError with the reason it gave."""
    log = f"drill-{name}"
    (names.LOGS / f"{log}.log").unlink(missing_ok=True)
    phase.log = str((names.LOGS / f"{log}.log").relative_to(names.ROOT))
    command: list[str | Path] = [names.bin_path("ansible-playbook"), "-i", INVENTORY, f"fluxhero.maintenance.{name}"]
    try:
        run([*command, "-e", json.dumps(variables)], log=log, env=FROM_ARTIFACT)
    except SetupError as error:
        text = (names.LOGS / f"{log}.log").read_text(encoding="utf-8", errors="replace")
        raise DrillError(f"the playbook {name} failed: {reason_in(text) or error}; see {phase.log}") from None


def reason_in(log: str) -> str:
    """What the last failing task of a playbook's log said, with a command's own words."""
    failure = log.rpartition("fatal: ")[2]
    try:  # on one line or on many, as the task wants it
        said, _end = json.JSONDecoder().raw_decode(failure, failure.index("{"))
    except ValueError:
        return ""
    return " ".join(str(said[key]) for key in ("msg", "stderr") if said.get(key))


def wait_for(what: str, condition: Callable[[], bool], timeout_s: float) -> None:
    """Poll until `condition` holds. Raises DrillError naming `what` when it does not in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise DrillError(f"{what}: not within {timeout_s:g} s")
        time.sleep(0.5)


def newest_backup(host: str) -> str:
    """The id of the generation that the last backup on a host made."""
    entries = json.loads(on_host(host, "fluxmaint", "journal", "--operation", "backup", "--limit", "1", "--json"))
    end = entries["entries"][-1]
    if end.get("event") != "end" or end.get("result") != "ok":
        raise DrillError(f"the backup on {host} ended as {end.get('result')}: {json.dumps(end)[:500]}")
    return str(end["id"])


def check_from_outside(host: str, report: Report) -> None:
    """Ask the service itself, through a tunnel, as its users would. Raises DrillError on the first wrong answer."""
    with tunnel(host, BACKEND_PORT) as port:
        status = backend_status(port)
        if status.get("status") != "ACTIVE" or not status.get("database_connected"):
            raise DrillError(f"/api/status says {status}")
        report.checks["status"] = f"ok: {status['status']}, trading {status.get('trading')}"
        report.checks["WebSocket"] = f"ok: {asyncio.run(first_price(port))[:60]}"
    with tunnel(host, FRONTEND_PORT) as port:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            page = answer.read().decode()
        if "FluxHero" not in page:
            raise DrillError("the front end's page does not name FluxHero")
        report.checks["front end"] = f"ok: {len(page)} bytes"


async def first_price(port: int) -> str:
    """The first message of the price stream."""
    async with websockets.connect(f"ws://127.0.0.1:{port}/ws/prices", open_timeout=10) as stream:
        return str(await asyncio.wait_for(stream.recv(), timeout=10))


def tables_of(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rows and content digest of each table of the one database that a manifest describes."""
    [database] = manifest["databases"]
    tables: dict[str, dict[str, Any]] = database["tables"]
    return tables


def compare_digests(host: str, manifest: dict[str, Any], report: Report) -> None:
    """Compute each table's content digest on the new host and compare it with the signed manifest's.

    The heartbeat goes on while trading is halted, so of it the numbers up to the snapshot's last are counted.
    """
    expected = tables_of(manifest)
    found = json.loads(on_host(host, "fluxmaint", "integrity", DATABASE, "--digests", "--json"))["content_digests"]
    for table, digest in expected.items():
        if table == "heartbeat":
            kept = query(host, f"SELECT count(*) FROM heartbeat WHERE n <= {digest['rows']}")[0]
            report.digests[table] = {"expected": digest["rows"], "found": kept, "equal": kept == digest["rows"]}
        else:
            report.digests[table] = {"expected": digest, "found": found.get(table), "equal": found.get(table) == digest}
    if not report.digests_equal:
        raise DrillError(f"the restored content differs from the manifest's: {json.dumps(report.digests)}")


def prepare(report: Report) -> None:
    """Have production and staging in service, deployed by the built artifact."""
    with report.phase("Build the collection and install the artifact"):
        install_collection()
    with report.phase("Boot the lab"):
        hosts.destroy(["standby"])
        hosts.create(["store", "production", "staging"])
    with report.phase("Deploy production and staging") as phase:
        playbook("site", phase, target="production:staging")


def drill(report: Report, sabotage: str) -> None:
    """Run the whole drill, filling `report` as it goes."""
    prepare(report)
    with report.phase(f"Trade at {RATE} a second for {LOAD_S} s"):
        start = sample("production")
        time.sleep(LOAD_S)
        traded = sample("production").trades - start.trades
        if traded < RATE * LOAD_S * 0.8:
            raise DrillError(f"the trade writer wrote {traded} trades in {LOAD_S} s, not {RATE} a second")
    with report.phase("Back up production while it trades") as phase:
        back_up(phase, report)
    with tunnel("store", STORE_PORT) as port:
        manifest = Offsite(port, "production", report.generation_id, "reader").manifest()
    with (
        report.phase("Prove the generation on staging, from the off-site store alone") as phase,
        damaged(report, sabotage) if sabotage else nullcontext(VERIFIER_KEY) as identity,
    ):
        prove(phase, report, identity)
    with report.phase(f"Trade on for {AFTER_BACKUP_S} s"):
        time.sleep(AFTER_BACKUP_S)
        failed = status_of("production")["failed_trades"]
        if failed:
            raise DrillError(f"{failed} trades have failed on production")
    care = care_of("production")
    with report.phase("Destroy production with its data", recovery=True):
        report.before = sample("production")
        hosts.destroy(["production"])
    with report.phase("Create a bare host", recovery=True):
        hosts.create(["standby"])
    with report.phase("Rebuild the service from the off-site store", recovery=True) as phase:
        recover(phase, report)
    with report.phase("Check from outside", recovery=True):
        check_from_outside("standby", report)
        compare_digests("standby", manifest, report)
        restored = tables_of(manifest)
        report.restored = Sample(manifest["started_at"], restored["heartbeat"]["rows"], restored["trades"]["rows"])
    with report.phase("Resume trading", recovery=True):
        at_rest = sample("standby")
        on_host("standby", "rm", HALT_FILE)
        wait_for("trading on the new host", lambda: sample("standby").trades > at_rest.trades, 30)
        report.checks["trading"] = "ok: halted after the restore, resumed by the operator"
    with report.phase("Rotate the logs and report on them, as production did") as phase:
        check_care("standby", care, phase, report)


def back_up(phase: Phase, report: Report) -> None:
    """Take a full generation of production."""
    playbook("backup", phase, target="production", backup_kind="full")
    report.generation_id = newest_backup("production")


@contextmanager
def damaged(report: Report, sabotage: str) -> Iterator[Path]:
    """Sabotage the generation; gives the identity that the verifier is to use.

    Afterwards it is not committed any more: a verifier remembers what does not hold as long as it is there.
    """
    with tunnel("store", STORE_PORT) as port:
        told = Offsite(port, "production", report.generation_id, "admin").sabotage(sabotage)
    say(f"==> Sabotage: {told}")
    try:
        yield foreign_identity(names.LAB) if sabotage == "identity" else VERIFIER_KEY
    finally:
        with tunnel("store", STORE_PORT) as port:
            Offsite(port, "production", report.generation_id, "admin").remove("COMMIT")


def prove(phase: Phase, report: Report, identity: Path) -> None:
    """Prove the generation; when that fails, production must not have been touched."""
    try:
        playbook(
            "verify_backups",
            phase,
            target="staging",
            backup_verify_hosts=["production"],
            backup_verify_generation=report.generation_id,
            backup_verify_identity_file=str(identity),
        )
    except DrillError as error:
        before = sample("production").trades
        wait_for("production trades on", lambda: sample("production").trades > before, 10)
        raise DrillError(f"{error}. Production was not touched, it is trading on") from None
    # Status 3 tells of generations that earlier sabotage has taken from the store: rightly, and no matter here.
    status = json.loads(on_host("production", "fluxmaint status --json || test $? -eq 3"))
    if status["newest_proven"] != report.generation_id:
        raise DrillError(f"production does not find a signed proof of {report.generation_id} in the store: {status}")
    report.proof = {"generation": status["newest_proven"], "signature_verified_by": "production"}


def care_of(host: str) -> dict[str, str]:
    """What looks after the service: each timer that is to run with its state, each unit and setting with its digest.

    Settings of the host itself are left out: its name and its part in backups.
    """
    timers = json.loads(on_host(host, "systemctl", "list-timers", "'fluxmaint-*'", "--output=json"))
    found = {timer["unit"]: "waits" if timer["next"] else "has no next time" for timer in timers}
    files = "/etc/systemd/system/fluxmaint-* /etc/fluxmaint/logrotate.d/* /etc/fluxmaint/config.d/*"
    for line in on_host(host, f"sha256sum {files}").splitlines():
        digest, path = line.split(maxsplit=1)
        if not path.endswith(OWN_SETTINGS):
            found[path] = digest
    return found


def check_care(host: str, expected: dict[str, str], phase: Phase, report: Report) -> None:
    """Compare with the lost host; rotate and report for real. Raises DrillError on the first thing that is missing."""
    found = care_of(host)
    wrong = sorted(name for name in expected if found.get(name) != expected[name])
    if wrong:
        raise DrillError(f"not looked after as on the lost host: {', '.join(wrong)}")
    lacking = sorted({f"{name}.timer" for name in CARE} - set(found))
    if lacking:
        raise DrillError(f"neither host has {', '.join(lacking)}")
    for unit in STARTED:
        on_host(host, "systemctl", "start", f"{unit}.service")
    # The weekly one is of the week before, of which a new host has not seen all.
    shutil.rmtree(REPORTS, ignore_errors=True)
    playbook("log_report", phase, target=host, log_report_fetch_dir=str(REPORTS))
    [page] = (REPORTS / host).glob("*.html")
    report.checks["upkeep"] = f"ok: {len(found)} timers, units and settings as on the lost host"
    report.checks["log report"] = f"ok: {page.stat().st_size} bytes"


def status_of(host: str) -> dict[str, Any]:
    """What the backend of a host says of itself."""
    with tunnel(host, BACKEND_PORT) as port:
        return backend_status(port)


def backend_status(port: int) -> dict[str, Any]:
    """What the backend behind a tunnel says of itself."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/status", timeout=10) as answer:
        status: dict[str, Any] = json.loads(answer.read())
    return status


def recover(phase: Phase, report: Report) -> None:
    """Rebuild the service on the bare host."""
    result = names.LAB / "disaster_recovery.json"
    result.unlink(missing_ok=True)
    playbook(
        "disaster_recovery",
        phase,
        disaster_recovery_generation=report.generation_id,
        disaster_recovery_identity_file=str(names.KEYS / "age" / "operator.key"),
        disaster_recovery_report_file=str(result),
    )
    recovery = json.loads(result.read_text(encoding="utf-8"))
    phase.parts, phase.afterwards = recovery["phases"], recovery["afterwards"]
    if recovery["content_digests_equal"] is not True:
        raise DrillError(f"before the start, the content was not compared with the manifest's: {recovery}")


def write_evidence(report: Report) -> Path:
    """Keep what was measured, under the time of the drill and as the latest."""
    EVIDENCE.mkdir(parents=True, exist_ok=True)
    text = json.dumps(report.evidence(), indent=2) + "\n"
    path = EVIDENCE / f"{report.started_at.replace(':', '')}-{report.scenario}.json"
    for file in (path, EVIDENCE / "latest.json"):
        file.write_text(text, encoding="utf-8")
    return path


def main() -> int:
    """Run the drill; 0 only when everything was measured and is as it should be."""
    sabotage = os.environ.get("DRILL_SABOTAGE", "")
    if sabotage and sabotage not in SABOTAGES:
        say(f"DRILL_SABOTAGE takes one of {', '.join(SABOTAGES)}, not {sabotage!r}")
        return 2
    report = Report(scenario="server_failure", started_at=now())
    try:
        drill(report, sabotage)
    except Exception as error:  # noqa: BLE001 - whatever ended it, the evidence says so
        kind = "" if isinstance(error, (DrillError, SetupError)) else f"{type(error).__name__}: "
        report.failure = f"{kind}{error}"
    path = write_evidence(report)
    say(f"\n{report.table()}\nevidence             {path.relative_to(names.ROOT)}")
    return 0 if report.result == "passed" else 1


if __name__ == "__main__":
    sys.exit(main())
