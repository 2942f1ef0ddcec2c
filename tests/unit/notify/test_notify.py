# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hooks, pings and what they may not give away: real executables, a real HTTP server."""

from __future__ import annotations

import base64
import dataclasses
import http.server
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fluxmaint.core import config as configuration
from fluxmaint.core.clock import Clock
from fluxmaint.core.errors import EngineError, InputError, PreconditionError
from fluxmaint.core.journal import Journal
from fluxmaint.notify import failed_unit, hooks, ping, watch
from fluxmaint.notify.event import Event, known_secrets, redact

SECRET = "s3cr3t-of-the-broker"
KEY = "not-a-real-access-key"


class Impatient(Clock):
    def sleep(self, seconds: float) -> None:
        """Do not wait between two attempts."""


@pytest.fixture
def config(tmp_path: Path) -> configuration.Config:
    for directory in ("state", "hooks.d", "keys"):
        (tmp_path / directory).mkdir()
    (tmp_path / ".env").write_text(f"# comment=visible\nAPI_TOKEN='{SECRET}'\nMODE=paper\n")
    (tmp_path / "keys/offsite.json").write_text(json.dumps({"access_key": KEY, "secret_key": KEY + "2"}))
    target = {"name": "offsite", "type": "s3", "endpoint": "http://store", "bucket": "b"}
    return configuration.parse(
        {
            "format": 1,
            "service": "fluxhero",
            "host": "production",
            "root": str(tmp_path),
            "user": "root",
            "group": "root",
            "units": [],
            "databases": [{"name": "trades", "path": str(tmp_path / "trades.db")}],
            "config_files": [str(tmp_path / ".env"), str(tmp_path / "missing.env")],
            "health": {},
            "backup": {
                "signer": "fluxhero@production",
                "targets": [{**target, "credentials_file": str(tmp_path / "keys/offsite.json")}],
            },
            "notify": {
                "hooks_dir": str(tmp_path / "hooks.d"),
                "hook_timeout_s": 2,
                "ping_file": str(tmp_path / "keys/ping.json"),
                "ping_timeout_s": 2,
            },
            "state_dir": str(tmp_path / "state"),
            "run_dir": str(tmp_path / "run"),
        }
    )


def hook(config: configuration.Config, name: str, script: str, mode: int = 0o755) -> None:
    path = config.notify.hooks_dir / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)


def event(**changes: Any) -> Event:
    facts = {"event": "unit_failed", "service": "fluxhero", "host": "production", "time": "2026-11-23T02:00:00Z"}
    return Event(**{**facts, "result": "exit-code", "message": "it failed", "unit": "a.service", **changes})


def tell(config: configuration.Config, **changes: Any) -> dict[str, Any]:
    return hooks.tell(config, event(**changes), journal=Journal(config.journal_file))


def test_every_hook_gets_the_document_and_it_is_journalled(config: configuration.Config, tmp_path: Path) -> None:
    hook(config, "10-mail", f"cat > {tmp_path}/first")
    hook(config, "20-chat", f"cat > {tmp_path}/second")
    hook(config, ".hidden", f"cat > {tmp_path}/third")
    told = tell(config, journal=["line"], details={"reasons": [{"text": "old"}]})
    assert (told["result"], [item["hook"] for item in told["hooks"]]) == ("ok", ["10-mail", "20-chat"])
    document = json.loads((tmp_path / "first").read_text())
    assert (
        document
        == json.loads((tmp_path / "second").read_text())
        == {
            "format": 1,
            "event": "unit_failed",
            "service": "fluxhero",
            "host": "production",
            "time": "2026-11-23T02:00:00Z",
            "unit": "a.service",
            "result": "exit-code",
            "message": "it failed",
            "journal": ["line"],
            "details": {"reasons": [{"text": "old"}]},
        }
    )
    assert not (tmp_path / "third").exists()
    [entry] = Journal(config.journal_file).read("notify")
    assert (entry["result"], entry["about"]["unit"]) == ("ok", "a.service")


@pytest.mark.parametrize(
    ("script", "mode", "said"),
    [
        ("echo no route; exit 3", 0o755, "ended with status 3: no route"),
        ("sleep 60", 0o755, "did not end within 2 s"),
        ("exit 0", 0o644, "is not an executable file"),
        ("exit 0", 0o777, "could be changed by somebody else"),
    ],
)
def test_a_bad_hook_is_told_and_the_next_one_still_runs(
    config: configuration.Config, tmp_path: Path, script: str, mode: int, said: str
) -> None:
    hook(config, "10-bad", script, mode)
    hook(config, "20-good", f"cat > {tmp_path}/got")
    told = tell(config)
    assert told["result"] == "degraded"
    assert said in told["hooks"][0]["message"]
    assert told["hooks"][0]["duration_s"] < 20
    assert told["hooks"][1]["ok"]
    assert (tmp_path / "got").exists()
    assert Journal(config.journal_file).read("notify")[0]["result"] == "degraded"


def test_without_a_hook_nobody_is_told_and_that_is_no_success(config: configuration.Config) -> None:
    told = tell(config)
    assert told["result"] == "degraded"
    assert "nobody is told" in told["problems"][0]


def test_secrets_are_blanked_out_everywhere(config: configuration.Config, tmp_path: Path) -> None:
    config.notify.ping_file.write_text(json.dumps({"backup": "https://ping.example/uuid-1234"}))
    hook(config, "10-all", f"cat > {tmp_path}/got; echo {SECRET}; exit 1")
    words = f"token {SECRET}, key {KEY}2, AGE-SECRET-KEY-1QQQ, https://ping.example/uuid-1234, paper"
    told = tell(config, message=words, journal=[words], details={"deep": [{"er": words}]})
    everything = (tmp_path / "got").read_text() + json.dumps(told) + config.journal_file.read_text()
    for secret in (SECRET, KEY, "AGE-SECRET-KEY-1", "uuid-1234"):
        assert secret not in everything
    assert "[redacted]" in everything
    assert "paper" in told["event"]["message"]  # too short to be a secret
    assert "visible" not in " ".join(known_secrets(config))


def test_the_end_of_what_a_hook_says_is_kept_and_no_more(
    config: configuration.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, kept = hooks._read, []

    def noted(descriptor: int, said: bytearray) -> bytes | None:
        chunk = read(descriptor, said)
        kept.append(len(said))
        return chunk

    monkeypatch.setattr(hooks, "_read", noted)
    hook(config, "10-flood", "head -c 3000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 4")
    [told] = tell(config)["hooks"]
    assert told["message"].endswith(" / the end")
    assert told["message"].startswith("ended with status 4: xxx")
    assert max(kept) == 1 << 16


def test_a_hook_may_leave_its_input_unread(config: configuration.Config) -> None:
    hook(config, "10-deaf", "exec 0<&-; sleep 0.3")
    hook(config, "20-quick", "exit 0")
    assert tell(config, journal=["x" * 1000] * 1000)["result"] == "ok"


def _lives(pid_file: Path) -> bool:
    try:
        state = Path("/proc", pid_file.read_text().strip(), "stat").read_text()
    except FileNotFoundError:
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_a_process_that_keeps_a_hook_s_output_open_is_not_waited_for(
    config: configuration.Config, tmp_path: Path
) -> None:
    hook(config, "10-daemon", f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 20' & sleep 0.3; echo said; exit 5")
    [told] = tell(config)["hooks"]
    assert told["message"] == "ended with status 5: said"
    assert told["duration_s"] < 2
    assert _lives(tmp_path / "pid")
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_what_a_hook_has_started_in_another_session_ends_with_its_time(
    config: configuration.Config, tmp_path: Path
) -> None:
    hook(config, "10-hung", f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 20' & sleep 20")
    [told] = tell(config)["hooks"]
    assert told["message"] == "did not end within 2 s"
    for _look in range(20):  # what is killed needs a moment to go
        if not _lives(tmp_path / "pid"):
            break
        time.sleep(0.1)
    assert not _lives(tmp_path / "pid")


def test_nobody_waits_for_a_fifo_in_the_place_of_a_file(config: configuration.Config, tmp_path: Path) -> None:
    (tmp_path / ".env").unlink()
    os.mkfifo(tmp_path / ".env")
    os.mkfifo(config.notify.ping_file, 0o600)
    assert KEY in known_secrets(config)
    with pytest.raises(InputError, match="is not a regular file"):
        ping.ping(config, "backup")


@pytest.mark.parametrize(
    "line",
    [
        f"API_TOKEN: {SECRET}",
        f'  - token: "{SECRET}"  # of the broker',
        f"\"token\": '{SECRET}',",
        f"export TOKEN={SECRET}  # of the broker",
        f"url: postgres://me:{SECRET}@host/db",
        f"URL=https://{SECRET}@host/db",
    ],
)
def test_secrets_in_other_forms_of_configuration_are_known(
    config: configuration.Config, tmp_path: Path, line: str
) -> None:
    (tmp_path / ".env").write_text(f"# a comment\nservice:\n{line}\n")
    hook(config, "10-all", f"cat > {tmp_path}/got; echo {SECRET}; exit 1")
    told = tell(config, message=f"it said {SECRET}", journal=[line])
    assert SECRET not in (tmp_path / "got").read_text() + json.dumps(told)


def test_a_percent_encoded_password_is_known_in_both_forms(config: configuration.Config) -> None:
    config.notify.ping_file.write_text(json.dumps({"backup": "https://me:open%20sesame@host/"}))
    assert {"open%20sesame", "open sesame"} <= set(known_secrets(config))


def test_the_credentials_of_a_verifier_are_secrets(config: configuration.Config, tmp_path: Path) -> None:
    for name in ("reader", "prover"):
        (tmp_path / f"{name}.json").write_text(json.dumps({"access_key": f"{name}-id", "secret_key": f"{name}-secret"}))
    verify = configuration.Verify(
        verifier="staging",
        target=dataclasses.replace(config.require_backup().targets[0], credentials_file=tmp_path / "reader.json"),
        proof_credentials_file=tmp_path / "prover.json",
        identity_file=tmp_path / "verifier.key",
        signing_key_file=tmp_path / "verifier_ed25519",
        allowed_signers_file=tmp_path / "allowed_signers",
        work_dir=tmp_path / "work",
        older=1,
        budget_s=60,
        evidence_days=400,
        origins=[],
    )
    found = known_secrets(dataclasses.replace(config, backup=None, verify=verify))
    assert {"reader-secret", "prover-secret"} <= set(found)


def test_forms_of_secrets_are_known() -> None:
    pem = "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n-----END OPENSSH PRIVATE KEY-----"
    for text in (
        pem,
        "-----BEGIN PRIVATE KEY-----\nabc",
        "https://me:abc@host/",
        "https://abc@host/",
        "http://a:b@abc@host/",
        "Authorization: Bearer abc",
    ):
        assert "abc" not in redact(text, [])
    assert redact("http://host/path at 10:00", []) == "http://host/path at 10:00"


class Listener(http.server.BaseHTTPRequestHandler):
    """Answers with the status that its path ends with, and notes the path."""

    def do_GET(self) -> None:
        self.server.heard.append(self.path)  # type: ignore[attr-defined]
        self.server.credentials.append(self.headers["Authorization"])  # type: ignore[attr-defined]
        self.send_response(int(self.path.rpartition("/")[2]))
        self.end_headers()

    def log_message(self, *arguments: Any) -> None:
        """Keep quiet."""


@pytest.fixture
def listener() -> Iterator[Any]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listener)
    server.heard, server.credentials = [], []  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield SimpleNamespace(
        place=f"127.0.0.1:{server.server_port}",
        url=f"http://127.0.0.1:{server.server_port}",
        heard=server.heard,  # type: ignore[attr-defined]
        credentials=server.credentials,  # type: ignore[attr-defined]
    )
    server.shutdown()
    server.server_close()
    thread.join()


def address(config: configuration.Config, url: Any, mode: int = 0o600) -> None:
    config.notify.ping_file.write_text(json.dumps({"backup": url}))
    config.notify.ping_file.chmod(mode)


def test_a_ping_is_heard_once(config: configuration.Config, listener: Any) -> None:
    address(config, f"{listener.url}/uuid-1234/200")
    assert ping.ping(config, "backup") is True
    assert listener.heard == ["/uuid-1234/200"]
    assert ping.ping(config, "verify") is False


def test_credentials_in_an_address_are_sent_as_such_and_never_told(config: configuration.Config, listener: Any) -> None:
    address(config, f"http://me:open%20sesame@{listener.place}/200")
    assert ping.ping(config, "backup")
    assert (listener.heard, listener.credentials) == (
        ["/200"],
        ["Basic " + base64.b64encode(b"me:open sesame").decode()],
    )
    address(config, f"http://me:sesame@{listener.place}/503")
    with pytest.raises(EngineError, match="HTTP status 503") as caught:
        ping.ping(config, "backup", clock=Impatient())
    assert "sesame" not in str(caught.value) + json.dumps(caught.value.as_dict())


def test_a_ping_that_is_not_heard_is_tried_again_and_never_tells_its_address(
    config: configuration.Config, listener: Any
) -> None:
    address(config, f"{listener.url}/uuid-1234/503")
    with pytest.raises(EngineError, match="HTTP status 503") as caught:
        ping.ping(config, "backup", clock=Impatient())
    assert len(listener.heard) == 3
    assert "uuid-1234" not in json.dumps(caught.value.as_dict())


ODD = [
    "http://127.0.0.1:1/",
    "http://nowhere.invalid/",
    "http://[",
    "http://a b/",
    "http://127.0.0.1/a ",
    "file:///etc/",
]


@pytest.mark.parametrize("url", [*(start + "uuid-1234" for start in ODD), 5, ["uuid-1234"]])
def test_no_kind_of_failure_tells_the_address(config: configuration.Config, url: Any) -> None:
    address(config, url)
    with pytest.raises(EngineError) as caught:
        ping.ping(config, "backup", clock=Impatient())
    assert "uuid-1234" not in str(caught.value) + json.dumps(caught.value.as_dict())


def test_only_web_addresses_are_asked(config: configuration.Config, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    address(config, f"file://{tmp_path}/there")
    with pytest.raises(InputError, match="has no http or https address for backup"):
        ping.ping(config, "backup", clock=Impatient())


def test_an_address_that_others_can_read_is_refused(config: configuration.Config, listener: Any) -> None:
    address(config, f"{listener.url}/200", 0o644)
    with pytest.raises(PreconditionError, match="can be read by others"):
        ping.ping(config, "backup")
    assert listener.heard == []


def test_a_failed_unit_is_described_by_systemd(config: configuration.Config) -> None:
    shown = "Result=exit-code\nExecMainStatus=6\nExecMainStartTimestamp=@1700000000\nDescription=Back up fluxhero\n"
    asked = []

    def runner(command: list[str], **_options: Any) -> Any:
        asked.append(command)
        return SimpleNamespace(text=shown if command[0] == "systemctl" else "one\nfluxmaint: no target\nlast\n")

    told = failed_unit.describe(config, "fluxmaint-backup@daily.service", runner=runner)
    assert told.message == "fluxmaint-backup@daily.service failed (exit-code, exit status 6): no target"
    assert (told.result, told.details["exit_status"], told.journal[-1]) == ("exit-code", 6, "last")
    assert asked[1] == ["journalctl", "--sync"], "what it said last may not be in the journal yet"
    assert asked[2][-2:] == ["--since=@1700000000", "_SYSTEMD_UNIT=fluxmaint-backup@daily.service"]


def test_a_degraded_run_that_says_nothing_more_is_called_degraded(config: configuration.Config) -> None:
    def runner(command: list[str], **_options: Any) -> Any:
        return SimpleNamespace(text="Result=exit-code\nExecMainStatus=3\n" if command[0] == "systemctl" else "")

    told = failed_unit.describe(config, "a.service", runner=runner)
    assert told.message.endswith("exit status 3): degraded: something was done, something was not")


def test_a_unit_that_nothing_is_known_of_is_told_all_the_same(config: configuration.Config) -> None:
    def runner(*_arguments: Any, **_options: Any) -> Any:
        raise PreconditionError("the command systemctl is not installed")

    told = failed_unit.describe(config, "a.service", runner=runner)
    assert told.message == "a.service failed (unknown)"
    assert "not installed" in told.journal[0]


NOW = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("codes", "told_at", "now_codes", "expected"),
    [
        ([], "", [], ""),
        ([], "", ["a"], "state"),
        (["a"], "2026-11-23T11:00:00Z", ["a"], ""),
        (["a", "b"], "2026-11-23T11:00:00Z", ["a"], ""),
        (["a"], "2026-11-23T11:00:00Z", ["a", "b"], "state"),
        (["a"], "2026-11-22T12:00:00Z", ["a"], "state"),
        (["a"], "2026-11-23T11:00:00Z", [], "recovered"),
    ],
)
def test_a_state_is_told_when_it_gets_worse_once_a_day_and_when_it_is_over(
    tmp_path: Path, codes: list[str], told_at: str, now_codes: list[str], expected: str
) -> None:
    before = {"codes": codes, "told_at": told_at} if codes else {}
    assert watch.due(before, now_codes, NOW) == expected
    watch.note(tmp_path / "told.json", now_codes, NOW)
    assert watch.due(watch.last_told(tmp_path / "told.json"), now_codes, NOW) == ""


@pytest.mark.parametrize("content", ["", "[]", '{"codes": 5}', '{"codes": ["a"], "told_at": 7}'])
def test_a_damaged_memory_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "told.json").write_text(content)
    assert watch.last_told(tmp_path / "told.json") == {}
