"""The pipelines: both digests in one pass, nothing under its name before it is verified, no hanging."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import tempfile
import time
from typing import TYPE_CHECKING, Any

import pytest
from fluxmaint.backup import crypto
from fluxmaint.core.errors import CommandError, IntegrityError, PreconditionError, TimeoutExceeded

if TYPE_CHECKING:
    from pathlib import Path

DATA = hashlib.sha256(b"seed").digest() * 100_000


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("keys")
    recipients = []
    for name in ("one", "two", "stranger"):
        subprocess.run(["age-keygen", "-o", top / name], check=True, capture_output=True)
        recipients.append(next(w for w in (top / name).read_text().split() if w.startswith("age1")))
    (top / "recipients").write_text("\n".join(recipients[:2]))
    return top


def encrypt(keys: Path, dest: Path, produce: Any = None, **options: Any) -> crypto.Encrypted:
    settings = {"recipients_file": keys / "recipients", "level": 3, "timeout_s": 60, **options}
    if produce:
        return crypto.encrypt(produce, dest, **settings)
    with tempfile.TemporaryFile() as source:
        source.write(DATA)
        source.seek(0)
        return crypto.encrypt_file(source, dest, **settings)


def decrypt(keys: Path, blob: bytes, dest: Path, done: crypto.Encrypted, identity: str = "one", **options: Any) -> None:
    settings = {"stored": [done.stored], "plain": done.plain, "subject": "the/key", "timeout_s": 60, **options}
    crypto.decrypt(iter([blob[:1000], blob[1000:]]), dest, identity_file=keys / identity, **settings)


def test_digests_and_privacy(keys: Path, tmp_path: Path) -> None:
    done = encrypt(keys, tmp_path / "x.age")
    blob = (tmp_path / "x.age").read_bytes()
    assert done.plain == crypto.Digest(len(DATA), hashlib.sha256(DATA).hexdigest())
    assert done.stored == crypto.Digest(len(blob), hashlib.sha256(blob).hexdigest())
    assert (tmp_path / "x.age").stat().st_mode & 0o777 == 0o600
    decrypt(keys, blob, tmp_path / "out", done, "two")
    assert (tmp_path / "out").read_bytes() == DATA
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o600


def test_a_file_is_read_from_its_position_and_told_to_its_end(keys: Path, tmp_path: Path) -> None:
    told: list[int] = []
    with tempfile.TemporaryFile() as source:
        source.write(b"head" + DATA)
        source.seek(0)
        assert source.read(4) == b"head"
        settings: dict[str, Any] = {"recipients_file": keys / "recipients", "level": 1, "timeout_s": 60}
        done = crypto.encrypt_file(
            source, tmp_path / "x.age", progress=lambda _step, facts: told.append(facts["done"]), **settings
        )
    assert done.plain == crypto.Digest(len(DATA), hashlib.sha256(DATA).hexdigest())
    assert told == sorted(told)
    assert told[-1] == len(DATA)


def test_who_watches_can_end_it(keys: Path, tmp_path: Path) -> None:
    def refuse(_step: str, _facts: dict[str, Any]) -> None:
        raise IntegrityError("the proof failed", subject="x")

    with pytest.raises(IntegrityError, match="the proof failed"):
        encrypt(keys, tmp_path / "x.age", progress=refuse)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written_is_no_damage(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = encrypt(keys, tmp_path / "x.age")
    blob = (tmp_path / "x.age").read_bytes()
    _instead(monkeypatch, tmp_path, "zstd", 'exec REAL "$@" > /dev/full')
    with pytest.raises(PreconditionError, match=r"out\.partial.*cannot be written|cannot be written.*out\.partial"):
        decrypt(keys, blob, tmp_path / "out", done)
    assert not (tmp_path / "out").exists()


def _instead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: str, script: str) -> None:
    """Let a shell script run in place of a tool; REAL in it is the tool's path."""
    found = shutil.which(tool)
    assert found is not None
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / tool).write_text(f"#!/bin/sh\n{script.replace('REAL', found)}\n")
    (tools / tool).chmod(0o755)
    monkeypatch.setenv("PATH", str(tools), prepend=":")


@pytest.mark.parametrize(
    ("tool", "script", "error", "told"),
    [
        ("zstd", "kill -9 $$", CommandError, "zstd was killed by signal 9"),
        ("zstd", "head -c 9 > /dev/null; kill -9 $$", CommandError, "zstd was killed by signal 9"),
        ("age", "kill -9 $$", CommandError, "age was killed by signal 9"),
        ("age", 'REAL "$@" | head -c 70000; kill -9 $$', CommandError, "age was killed by signal 9"),
        ("zstd", "head -c 9 > /dev/null; echo no frame >&2; exit 1", IntegrityError, "decompressed: no frame"),
    ],
)
def test_a_tool_that_was_killed_says_nothing_about_the_object(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str, script: str, error: Any, told: str
) -> None:
    content = random.Random(1).randbytes(4 << 20)  # more than the pipes hold: age gets SIGPIPE when zstd is gone
    done = encrypt(keys, tmp_path / "x.age", lambda writer: writer.write(content))
    blob = (tmp_path / "x.age").read_bytes()
    _instead(monkeypatch, tmp_path, tool, script)
    with pytest.raises(error, match=told) as caught:
        decrypt(keys, blob, tmp_path / "out", done)
    assert caught.value.subject == "the/key"
    assert not (tmp_path / "out").exists()


def test_failures_leave_no_file(keys: Path, tmp_path: Path) -> None:
    def broken(writer: crypto.DigestingWriter) -> None:
        writer.write(DATA)
        raise ValueError("the source broke")

    with pytest.raises(ValueError, match="the source broke"):
        encrypt(keys, tmp_path / "x.age", broken)
    (tmp_path / "bad").write_text("age1nonsense\nage1nonsense2\n")
    with pytest.raises(CommandError, match="age"):
        encrypt(keys, tmp_path / "x.age", recipients_file=tmp_path / "bad")
    assert [path.name for path in tmp_path.iterdir()] == ["bad"]


def test_a_pipeline_that_stalls_is_ended(keys: Path, tmp_path: Path) -> None:
    def slow(writer: crypto.DigestingWriter) -> None:
        for _unused in range(200):
            writer.write(DATA)
            time.sleep(0.05)

    started = time.monotonic()
    with pytest.raises(TimeoutExceeded):
        encrypt(keys, tmp_path / "x.age", slow, timeout_s=0.5)
    assert time.monotonic() - started < 5
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("damage", ["flip-start", "flip-end", "cut", "empty", "more"])
def test_damage_is_told_apart_from_a_wrong_identity(keys: Path, tmp_path: Path, damage: str) -> None:
    done = encrypt(keys, tmp_path / "x.age")
    blob = bytearray((tmp_path / "x.age").read_bytes())
    if damage.startswith("flip"):
        blob[10 if damage == "flip-start" else -10] ^= 1
    blob = {"cut": blob[:-1], "empty": bytearray(), "more": blob + b"x"}.get(damage, blob)
    with pytest.raises(IntegrityError, match="not what the manifest describes") as caught:
        decrypt(keys, bytes(blob), tmp_path / "out", done)
    assert caught.value.subject == "the/key"
    assert not list(tmp_path.glob("out*"))


def test_a_wrong_identity_and_wrong_content(keys: Path, tmp_path: Path) -> None:
    done = encrypt(keys, tmp_path / "x.age")
    blob = (tmp_path / "x.age").read_bytes()
    with pytest.raises(IntegrityError, match=r"identity in .*stranger"):
        decrypt(keys, blob, tmp_path / "out", done, "stranger")
    with pytest.raises(IntegrityError, match="more than 10 bytes"):
        decrypt(keys, blob, tmp_path / "out", done, plain=crypto.Digest(10, "0" * 64))
    with pytest.raises(IntegrityError, match="decrypted content"):
        decrypt(keys, blob, tmp_path / "out", done, plain=crypto.Digest(len(DATA), "0" * 64))
    with pytest.raises(PreconditionError, match="nobody"):
        decrypt(keys, blob, tmp_path / "out", done, "nobody")
    assert not list(tmp_path.glob("out*"))


def test_recipients(tmp_path: Path) -> None:
    path = tmp_path / "recipients"
    one, other = (
        "age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p",
        "age1lggyhqrw2nlhcxprm67z43rta597azn8gknawjehu9d9dl0jq3yqqvfafg",
    )
    path.write_text(f"# comment\n\n{one}\n {other} \n{one}\n")
    assert crypto.read_recipients(path) == [one, other]
    for text in (f"{one}\n", f"{one}\n{one}\n", f"{one}\nssh-ed25519 AAAA\n", ""):
        path.write_text(text)
        with pytest.raises(PreconditionError):
            crypto.read_recipients(path)
    with pytest.raises(PreconditionError):
        crypto.read_recipients(tmp_path / "none")


def test_encryption_steps_back_and_its_caller_does_not(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without CAP_SYS_NICE the caller could not get its priority back for what comes next."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    _instead(monkeypatch, tmp_path, "zstd", f'sleep 0.3; nice > {tmp_path}/nice; exec REAL "$@"')
    seen: list[int] = []

    def look(*_told: Any) -> None:
        seen.append(os.getpriority(os.PRIO_PROCESS, 0))

    digesting: list[int] = []
    catch_up = crypto._Follower.catch_up

    def watched(self: Any, *arguments: Any) -> int:
        digesting.append(os.getpriority(os.PRIO_PROCESS, 0))
        return catch_up(self, *arguments)

    monkeypatch.setattr(crypto._Follower, "catch_up", watched)
    for produce in (None, lambda writer: writer.write(DATA)):
        if produce is None:
            encrypt(keys, tmp_path / "file.age", progress=look, nice=before + 4)
        else:
            encrypt(keys, tmp_path / "stream.age", produce, nice=before + 4)
        assert int((tmp_path / "nice").read_text()) == before + 4
        assert os.getpriority(os.PRIO_PROCESS, 0) == before
    assert set(seen) == {before}
    assert set(digesting) == {before + 4}
