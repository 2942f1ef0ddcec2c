"""The built executable as a person or a timer calls it: exit codes, JSON, text, errors."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fluxmaint.core.clock import Clock

from tests.support.world import CANARY, World, build

ROOT = Path(__file__).resolve().parents[3]


class Earlier(Clock):
    """A clock that is some seconds slow."""

    def __init__(self, behind_s: float) -> None:
        self.behind = timedelta(seconds=behind_s)

    def now(self) -> datetime:
        return super().now() - self.behind


class Fluxmaint:
    """Runs the executable against one world."""

    def __init__(self, executable: Path, world: World) -> None:
        self.executable = executable
        self.world = world

    def run(self, *words: str | Path, exits: int = 0) -> str:
        """Run one command; its output must not hold the world's secret, its exit code must be `exits`."""
        command = [sys.executable, "-I", self.executable, *words, "--config", self.world.config_file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == exits, done.stdout + done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done.stdout if exits in (0, 3) else done.stdout + done.stderr

    def json(self, *words: str | Path, exits: int = 0) -> Any:
        """Run one command with `--json` and parse what it prints."""
        command = [sys.executable, "-I", self.executable, *words, "--json", "--config", self.world.config_file]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == exits, done.stdout + done.stderr
        return json.loads(done.stdout)

    def prove_elsewhere(self) -> Any:
        """Prove the newest generation as the verifier `staging` would."""
        own = self.world.config_file.read_text()
        document = json.loads(own)
        document["host"] = "staging"
        document["backup"]["signing_key_file"] = str(self.world.keys / "verifier_ed25519")
        self.world.config_file.write_text(json.dumps(document))
        try:
            identity = self.world.keys / "operator.key"
            return self.json("prove", "--target", "local", "--host", "production", "--identity", identity)
        finally:
            self.world.config_file.write_text(own)


@pytest.fixture(scope="session")
def executable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    spec = importlib.util.spec_from_file_location("executable", ROOT / "plugins/plugin_utils/executable.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    path = tmp_path_factory.mktemp("bin") / "fluxmaint"
    path.write_bytes(module.build())
    return path


@pytest.fixture
def fluxmaint(executable: Path, tmp_path: Path) -> Fluxmaint:
    world = build(tmp_path)
    world.config()
    return Fluxmaint(executable, world)


def test_help_tells_the_commands_and_the_exit_codes(fluxmaint: Fluxmaint) -> None:
    done = subprocess.run([sys.executable, fluxmaint.executable, "--help"], capture_output=True, text=True, check=True)
    for word in ("version", "config", "backup", "restore", "prove", "status", "journal", "exit codes", "degraded"):
        assert word in done.stdout


def test_without_a_command_or_with_a_wrong_option_it_is_a_usage_error(fluxmaint: Fluxmaint) -> None:
    for words in ([], ["backup", "--kind", "hourly"]):
        command = [sys.executable, fluxmaint.executable, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "usage:" in done.stderr


def test_config_check_accepts_a_good_configuration(fluxmaint: Fluxmaint) -> None:
    assert fluxmaint.json("config", "check")["databases"] == ["trades"]
    assert "is valid" in fluxmaint.run("config", "check")


def test_config_check_names_every_mistake_and_exits_with_2(fluxmaint: Fluxmaint) -> None:
    document = json.loads(fluxmaint.world.config_file.read_text())
    document["root"] = "relative"
    document["backup"]["signer"] = ""
    fluxmaint.world.config_file.write_text(json.dumps(document))
    told = fluxmaint.run("config", "check", exits=2)
    assert "root must be an absolute path" in told
    assert "backup.signer must be" in told


def test_places_that_are_one_are_refused_before_anything_is_done(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    assert fluxmaint.json("backup", "--dry-run")["targets"] == {"local": "reachable"}
    assert f"config: {fluxmaint.world.root}/.env\n" in fluxmaint.run("backup", "--dry-run", "--kind", "full")
    far = {"name": "far", "type": "path", "path": str(tmp_path / "far")}
    fluxmaint.world.config(targets=[*fluxmaint.world.document["backup"]["targets"], far])
    assert "target far: " in fluxmaint.run("backup", "--dry-run", exits=3)
    (tmp_path / "far").symlink_to(fluxmaint.world.store)
    for words in (["backup", "--dry-run"], ["backup"], ["config", "check"]):
        told = fluxmaint.run(*words, exits=2)
        assert f"{far['path']} (really {fluxmaint.world.store})" in told
        assert f"is the same as target local {fluxmaint.world.store}" in told
    assert not list(fluxmaint.world.store.glob("fluxhero"))


@pytest.mark.parametrize("words", [["status"], ["notify", "--test"], ["config", "check"]])
def test_nobody_waits_for_a_fifo_in_the_place_of_the_configuration(fluxmaint: Fluxmaint, words: list[str]) -> None:
    fluxmaint.world.config_file.unlink()
    os.mkfifo(fluxmaint.world.config_file)
    assert "is not a regular file" in fluxmaint.run(*words, exits=2)


def test_config_check_of_a_candidate_looks_at_the_whole(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    candidate = tmp_path / "candidate.json"
    candidate.write_text(json.dumps({"backup": {}}))
    told = fluxmaint.run("config", "check", "--candidate", f"backup.json={candidate}", exits=2)
    assert "the key backup is in" in told
    assert "takes NAME=FILE" in fluxmaint.run("config", "check", "--candidate", "nothing", exits=2)


def test_status_before_the_first_backup_is_not_a_success(fluxmaint: Fluxmaint) -> None:
    status = fluxmaint.json("status", exits=3)
    assert status["last_backup"] is None
    assert status["targets"]["local"]["newest"] == ""
    assert "never" in fluxmaint.run("status", exits=3)


def test_a_backup_is_listed_proven_and_shown_by_status(fluxmaint: Fluxmaint) -> None:
    made = fluxmaint.json("backup", "--kind", "full")
    assert made["result"] == "ok"
    assert [reason["code"] for reason in fluxmaint.json("status", exits=3)["reasons"]] == ["never_proven"]
    proof = fluxmaint.prove_elsewhere()
    assert proof["generation"] == made["id"]
    assert proof["result"] == "proven"
    listed = fluxmaint.json("generations")["generations"]
    assert [(item["id"], item["state"], item["targets"], item["proven_by"]) for item in listed] == [
        (made["id"], "committed", ["local"], ["staging"])
    ]
    status = fluxmaint.json("status")
    assert status["result"] == "ok"
    assert status["last_backup"]["id"] == made["id"]
    assert status["newest_proven"] == made["id"]
    assert made["id"] in fluxmaint.run("status")
    assert made["id"] in fluxmaint.run("generations")


@pytest.mark.parametrize(("limit", "code"), [("max_age_s", "backup_overdue"), ("max_proven_age_s", "proof_overdue")])
def test_a_limit_of_freshness_that_is_passed_makes_status_overdue(fluxmaint: Fluxmaint, limit: str, code: str) -> None:
    two_hours_ago = Earlier(7200)
    fluxmaint.world.create(clock=two_hours_ago)
    fluxmaint.prove_elsewhere()
    fluxmaint.json("status")
    fluxmaint.world.config(**{limit: 3600})
    status = fluxmaint.json("status", exits=3)
    assert status["result"] == "overdue"
    assert code in [reason["code"] for reason in status["reasons"]]


def test_status_does_not_call_a_generation_proven_by_a_proof_that_nobody_signed(fluxmaint: Fluxmaint) -> None:
    made = fluxmaint.json("backup")
    forged = fluxmaint.world.store / "fluxhero/production/proofs" / made["id"] / "20261123T020000Z-staging.json"
    forged.parent.mkdir(parents=True)
    forged.write_text(json.dumps({"result": "proven"}))
    assert fluxmaint.json("status", exits=3)["newest_proven"] == ""


def test_status_with_no_target_in_reach_says_so(fluxmaint: Fluxmaint) -> None:
    fluxmaint.json("backup")
    (fluxmaint.world.store / ".fluxmaint-target").unlink()
    status = fluxmaint.json("status", exits=3)
    assert status["targets"]["local"]["reachable"] is False
    assert status["last_backup"]["result"] == "ok"


def test_a_target_that_is_away_makes_backup_and_status_degraded(fluxmaint: Fluxmaint) -> None:
    document = json.loads(fluxmaint.world.config_file.read_text())
    away = fluxmaint.world.top / "away"
    document["backup"]["targets"].append({"name": "away", "type": "path", "path": str(away)})
    fluxmaint.world.config_file.write_text(json.dumps(document))
    made = fluxmaint.json("backup", exits=3)
    assert made["result"] == "degraded"
    assert "away" in made["errors"]
    status = fluxmaint.json("status", exits=3)
    assert status["targets"]["away"]["error"]
    assert status["targets"]["local"]["committed"] == 1


def test_the_wrong_identity_exits_with_5_and_names_the_object(fluxmaint: Fluxmaint) -> None:
    fluxmaint.json("backup")
    stranger = fluxmaint.world.keys / "stranger.key"
    told = fluxmaint.run("prove", "--target", "local", "--identity", stranger, exits=5)
    assert ".age" in told


def test_the_journal_is_shown_and_its_chain_verified(fluxmaint: Fluxmaint) -> None:
    fluxmaint.json("backup")
    entries = fluxmaint.json("journal", "--operation", "backup")["entries"]
    assert (entries[0]["event"], entries[-1]["event"], entries[-1]["result"]) == ("start", "end", "ok")
    assert fluxmaint.json("journal", "--limit", "1")["entries"] == entries[-1:]
    assert "backup end ok" in fluxmaint.run("journal")
    assert fluxmaint.json("journal", "--verify")["entries"] == len(entries)
    journal = fluxmaint.world.top / "state" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes().replace(b'"start"', b'"begin"', 1))
    assert "does not follow" in fluxmaint.run("journal", "--verify", exits=5)


def test_integrity_tells_rows_and_digests_and_exits_with_5_for_damage(fluxmaint: Fluxmaint) -> None:
    database = fluxmaint.world.database
    report = fluxmaint.json("integrity", database, "--digests")
    assert report["ok"] is True
    assert report["content_digests"]["trades"]["rows"] == 200
    data = bytearray(database.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    database.write_bytes(bytes(data))
    assert "DAMAGED" in fluxmaint.run("integrity", database, exits=5)


def test_a_missing_database_is_named_and_not_created(fluxmaint: Fluxmaint) -> None:
    missing = fluxmaint.world.top / "missing.db"
    assert "missing.db" in fluxmaint.run("integrity", missing, exits=2)
    assert not missing.exists()


def test_nothing_to_resume_is_said(fluxmaint: Fluxmaint) -> None:
    assert "no restore is unfinished" in fluxmaint.run("restore", "--resume")


@pytest.mark.parametrize("place", ["state", "run", "state/journal.jsonl"])
def test_what_the_system_refuses_is_one_sentence_and_one_document(fluxmaint: Fluxmaint, place: str) -> None:
    path = fluxmaint.world.top / place
    if path.suffix:
        path.mkdir()
    else:
        path.rmdir()
        path.write_text("in the way")
    answer = fluxmaint.json("backup", exits=1)
    assert str(path) in answer["subject"]
    assert answer["message"]
    text = fluxmaint.run("backup", exits=1)
    assert "Traceback" not in text
    assert str(path) in text


def test_a_database_behind_a_loop_of_links_is_an_error_that_names_it(fluxmaint: Fluxmaint) -> None:
    loop = fluxmaint.world.top / "loop.db"
    loop.symlink_to(loop)
    fluxmaint.world.document["databases"][0]["path"] = str(loop)
    fluxmaint.world.config()
    assert fluxmaint.json("backup", exits=2)["subject"] == str(loop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_backup_leaves_no_plain_data_and_says_so(fluxmaint: Fluxmaint, number: signal.Signals) -> None:
    world = fluxmaint.world
    endless = "WITH RECURSIVE r(a) AS (SELECT 1 UNION ALL SELECT a + 1 FROM r) SELECT count(*) FROM r"
    world.document["databases"][0]["invariants"] = [{"name": "endless", "sql": endless, "expect": 0}]
    world.config()
    command = [sys.executable, "-I", fluxmaint.executable, "backup", "--json", "--config", world.config_file]
    running = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The tests may run in the background, where a shell has SIGINT ignored; fluxmaint would respect that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509 - the tests start no threads
    )
    staging = world.top / "state/staging"
    for _unused in range(600):
        if list(staging.glob("*/work/*.sqlite")):
            break
        time.sleep(0.05)
    assert list(staging.glob("*/work/*.sqlite"))
    running.send_signal(number)
    output, errors = running.communicate(timeout=60)
    assert running.returncode == 128 + number, errors
    assert json.loads(output)["error"] == "Stopped"
    assert errors == f"fluxmaint: ended by {number.name}\n"
    assert not list(staging.iterdir())


@pytest.mark.parametrize("content", ["[]", '{"format": 1}', "[" * 100_000])
def test_a_damaged_plan_of_a_restore_is_named(fluxmaint: Fluxmaint, content: str) -> None:
    plan = fluxmaint.world.top / "state/restore.json"
    plan.write_text(content)
    assert fluxmaint.json("status", exits=2)["subject"] == str(plan)


def test_foreign_lines_in_the_journal_are_passed_over(fluxmaint: Fluxmaint) -> None:
    journal = fluxmaint.world.top / "state/journal.jsonl"
    lines = ["{}", '{"operation": "backup"}', '{"time": null, "operation": "backup", "event": 5}', "[" * 100_000]
    journal.write_text("\n".join(lines))
    assert fluxmaint.json("journal")["entries"] == []
    assert fluxmaint.json("status", exits=3)["last_backup"] is None


def test_a_damaged_cache_index_is_made_again(fluxmaint: Fluxmaint) -> None:
    fluxmaint.run("backup")
    index = fluxmaint.world.top / "state/cache-index.json"
    before = json.loads(index.read_text())
    for content in ("[]", "", '{"a": {"local": 5}}', '{"a": 1}'):
        index.write_text(content)
        fluxmaint.run("backup")
        assert json.loads(index.read_text()) == before


@pytest.mark.parametrize("state", ["[]", "{}"])
def test_a_damaged_staged_generation_is_named_and_set_aside(fluxmaint: Fluxmaint, state: str) -> None:
    staged = fluxmaint.world.top / "state/staging/20261123T030232Z-90de15"
    staged.mkdir(parents=True)
    (staged / "state.json").write_text(state)
    (problem,) = fluxmaint.json("backup", exits=3)["problems"]
    assert str(staged / "state.json") in problem
    assert staged.with_name(f"damaged-{staged.name}").is_dir()
    fluxmaint.json("backup")


def test_a_terminal_sees_the_progress_and_a_program_only_the_document(fluxmaint: Fluxmaint) -> None:
    command = [sys.executable, "-I", fluxmaint.executable, "backup", "--json", "--config", fluxmaint.world.config_file]
    main, side = pty.openpty()
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=side, check=True, timeout=60)
    os.close(side)
    seen = os.read(main, 1 << 16).decode()
    os.close(main)
    assert json.loads(done.stdout)["result"] == "ok"
    assert "backup: encrypt db-trades" in seen
    assert "\n" not in seen
    quiet = subprocess.run([*command, "--quiet"], capture_output=True, check=True, timeout=60)
    assert quiet.stderr == b""


def test_the_log_of_systemd_gets_a_line_for_each_step(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    command = [sys.executable, "-I", fluxmaint.executable, "backup", "--config", fluxmaint.world.config_file]
    with open(tmp_path / "log", "w+") as log:
        status = os.fstat(log.fileno())
        environment = {**os.environ, "JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log, check=True, timeout=60, env=environment)
        log.seek(0)
        lines = log.read().splitlines()
    assert "backup: encrypt db-trades" in lines
    assert len(lines) < 60


@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.3])
def test_an_early_interrupt_ends_it_without_a_traceback(fluxmaint: Fluxmaint, after_s: float) -> None:
    running = subprocess.Popen(
        [sys.executable, "-I", "-S", fluxmaint.executable, "status", "--config", fluxmaint.world.config_file],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - the tests start no threads
    )
    time.sleep(after_s)
    running.send_signal(signal.SIGINT)
    _output, errors = running.communicate(timeout=60)
    assert "Traceback" not in errors
    assert running.returncode in (-signal.SIGINT, 128 + signal.SIGINT)


def test_one_file_is_extracted_into_a_directory_and_nothing_else(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    world = fluxmaint.world
    fluxmaint.run("backup")
    env = str(world.root / ".env")
    listed = fluxmaint.json("extract", "--list", "--path", "*/fluxhero.log*")
    assert {Path(item["path"]).name for item in listed["files"]} == {"fluxhero.log", "fluxhero.log.1"}
    to, identity = tmp_path / "out", world.keys / "operator.key"
    words = ["extract", "--identity", identity, "--to", to]
    answer = fluxmaint.json(*words, "--part", "config", "--path", env)
    [item] = answer["files"]
    assert (item["path"], item["file"], item["mode"]) == (env, f"{to}{env}", "0640")
    assert [path for path in to.rglob("*") if path.is_file()] == [Path(item["file"])]
    assert Path(item["file"]).read_bytes() == Path(env).read_bytes()
    assert Path(item["file"]).stat().st_mode & 0o777 == 0o600
    assert "is not a new or empty directory" in fluxmaint.run(*words, "--path", env, exits=1)
    assert fluxmaint.json("journal", "--operation", "extract")["entries"][-1]["extracted"] == 1


@pytest.mark.parametrize(
    ("part", "pattern"), [("db-trades", "*/trades.db"), ("cache", "*/spy.parquet"), ("system", "*/REVISION")]
)
def test_a_file_of_any_part_is_extracted(fluxmaint: Fluxmaint, tmp_path: Path, part: str, pattern: str) -> None:
    fluxmaint.run("backup", "--kind", "full")
    identity = fluxmaint.world.keys / "operator.key"
    words = ["extract", "--identity", identity, "--to", tmp_path / "out"]
    [item] = fluxmaint.json(*words, "--path", pattern)["files"]
    assert item["part"] == part
    assert Path(item["file"]).stat().st_size == item["bytes"]
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_what_cannot_be_extracted_is_named(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    fluxmaint.run("backup")
    words = ["extract", "--identity", fluxmaint.world.keys / "stranger.key", "--to", tmp_path / "out"]
    assert "has no file /etc/passwd" in fluxmaint.run(*words, "--path", "/etc/passwd", exits=2)
    assert "needs --identity and --to" in fluxmaint.run("extract", exits=2)
    odd = fluxmaint.run(*words, "--host", "../production", exits=2)
    assert "'../production' cannot be the name of a host" in odd
    assert ".age" in fluxmaint.run(*words, "--part", "config", exits=5)
    assert list((tmp_path / "out").iterdir()) == []
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert "is not a new" in fluxmaint.run(*words[:-1], tmp_path / "link", exits=1)


@pytest.mark.skipif(not os.access("/etc/systemd/system", os.W_OK), reason="units are held by drop-ins in /etc")
def test_what_a_stopped_restore_leaves_is_said(fluxmaint: Fluxmaint, tmp_path: Path) -> None:
    """The first step with the service hangs, as a unit that does not stop would make it."""
    world = fluxmaint.world
    made = fluxmaint.json("backup")["id"]
    world.rows(1)
    tools = tmp_path / "tools"
    tools.mkdir()
    systemctl = '#!/bin/sh\ncase "$1" in show) echo inactive;; daemon-reload) touch "$0.held"; exec sleep 60;; esac\n'
    (tools / "systemctl").write_text(systemctl)
    (tools / "systemctl").chmod(0o755)
    words = ["restore", "--generation", made, "--identity", world.keys / "operator.key", "--no-start"]
    unit_dir = Path("/etc/systemd/system/fluxhero-backend.service.d")
    try:
        running = subprocess.Popen(
            [sys.executable, "-I", fluxmaint.executable, *words, "--config", world.config_file],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        deadline = time.monotonic() + 60
        while not (tools / "systemctl.held").exists():
            assert running.poll() is None and time.monotonic() < deadline, running.communicate()
            time.sleep(0.05)
        running.send_signal(signal.SIGINT)
        _output, errors = running.communicate(timeout=60)
        assert running.returncode == 130, errors
        assert "ended by SIGINT" in errors
        assert "fluxmaint restore --resume finishes or undoes it" in errors
        assert "fluxhero-backend.service cannot be started until then" in errors
        state = fluxmaint.json("status", exits=3)
        assert state["result"] == "failed"
        assert state["held_units"] == ["fluxhero-backend.service"]
    finally:
        shutil.rmtree(unit_dir, ignore_errors=True)


def test_names_that_are_no_ids_and_no_times_do_not_hide_the_generations(fluxmaint: Fluxmaint) -> None:
    made = fluxmaint.json("backup")["id"]
    top = fluxmaint.world.store / "fluxhero/production"
    for name in ("99999999T999999Z-aaaaaa", "\u0662\u0660261123T020000Z-7f3a2c"):
        (top / "generations" / name).mkdir()
        (top / "generations" / name / "COMMIT").write_text("x")
        words = ["prove", "--target", "local", "--identity", "/none", "--generation", name]
        assert "is not a generation id" in fluxmaint.run(*words, exits=2)
    (top / "proofs" / made).mkdir(parents=True)
    (top / "proofs" / made / "99999999T999999Z-verifier.json").write_text("x")
    listed = fluxmaint.json("generations")["generations"]
    assert [(item["id"], item["proven_by"]) for item in listed] == [(made, [])]


@pytest.mark.parametrize("sql", ["SELECT x'00'", "SELECT 1e999", "SELECT zeroblob(9000000)", "SELECT nothing"])
def test_an_unusable_query_for_the_newest_time_names_the_database(fluxmaint: Fluxmaint, sql: str) -> None:
    fluxmaint.world.document["databases"][0]["queries"] = {"newest": sql}
    fluxmaint.world.config()
    answer = fluxmaint.json("backup", exits=2)
    assert answer["subject"] == str(fluxmaint.world.database)
    assert "newest" in answer["message"]
    assert len(answer["message"]) < 300


def test_a_link_to_what_cannot_be_listed_does_not_keep_the_rest_from_a_full_backup(fluxmaint: Fluxmaint) -> None:
    link = fluxmaint.world.root / "releases/r1/odd"
    link.symlink_to(os.fsdecode(b"\xff"))
    result = fluxmaint.json("backup", "--kind", "full", exits=3)
    assert result["problems"] == [f"{link} is a link to what cannot be listed and is left out"]
