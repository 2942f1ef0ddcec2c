"""A generation is restored on bare Debian hosts, with the distribution's packages and what RESTORE.txt says.

Nothing is typed but the text's own commands, with the paths that it asks for, and looked at afterwards. The
generations are the committed one of each format, and one that the engine makes now, with the text that it writes now.
One host copies from a directory, the other from an S3 store.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.lab import image_build, names
from tests.support.seaweed import BUCKET, ObjectStore
from tests.support.typed import steps

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures"
TODAY = "today"
DIRECTORY, S3 = "From a directory", "Or from an S3 bucket"
SUITES = ("bookworm", "trixie")
MADE = [*sorted(path.name for path in FIXTURES.glob("format-*")), TODAY]
# Each suite copies in one way what the other copies in the other.
WAYS = {
    (suite, made): (DIRECTORY, S3)[(number + turn) % 2]
    for turn, suite in enumerate(SUITES)
    for number, made in enumerate(MADE)
}
TOOLS = ("age", "zstd", "ssh-keygen", "sqlite3", "rclone")
PATHS = {
    "/path/to/work": "/root/work",
    "/path/to/target": "/srv/target",
    "/path/to/allowed_signers": "/safe/allowed_signers",
    "/path/to/age.key": "/safe/escrow.key",
}


class BareHost:
    """A container of what a minimal Debian has."""

    def __init__(self, suite: str, made: str) -> None:
        self.name = f"{names.PREFIX}-hands-{suite}-{made}"
        self.image = image_build.base_image(suite)

    def start(self) -> None:
        # The host's network: the S3 store of the tests listens on the loopback interface only.
        label = f"{names.LABEL}=1"
        self.remove()
        options = ["--detach", "--name", self.name, "--label", label, "--network", "host"]
        docker("run", *options, self.image, "sleep", "600")

    def remove(self) -> None:
        subprocess.run(["docker", "rm", "--force", "--volumes", self.name], capture_output=True, check=False)

    def copy(self, source: Path, place: str) -> None:
        docker("cp", str(source), f"{self.name}:{place}")

    def bash(self, script: str, answers: str = "") -> subprocess.CompletedProcess[str]:
        command = ["docker", "exec", "--interactive", self.name, "bash", "-c", script]
        return subprocess.run(command, input=answers, capture_output=True, text=True, check=False, timeout=300)

    def type(self, commands: list[str], answers: str = "") -> list[str]:
        """Type commands into one shell until one fails; returns what each printed."""
        lines = [f"{command}\n[ $? = 0 ] || exit 1\necho; echo '-- next --'" for command in commands]
        done = self.bash("\n".join(lines), answers)
        printed = done.stdout.split("-- next --\n")
        failed = commands[len(printed) - 1] if done.returncode else ""
        assert not failed, f"{self.name}: {failed}\n{printed[-1]}\n{done.stderr[-3000:]}"
        return printed[:-1]


def docker(*words: str) -> None:
    done = subprocess.run(["docker", *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"docker {' '.join(words)}: {done.stderr}"


def chosen(commands: list[str]) -> list[str]:
    """The commands with the paths that a person chose."""
    for example, path in PATHS.items():
        commands = [command.replace(example, path) for command in commands]
    return commands


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where the generations are: the committed ones, and those that the engine has made just now."""
    found = {path.name: path for path in FIXTURES.glob("format-*")}
    if os.geteuid() == 0:  # the service is built under its real paths, where nobody else sees it
        found[TODAY] = tmp_path_factory.mktemp("today") / "made"
        command = [sys.executable, "-m", "tests.fixtures.make", str(found[TODAY])]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    return found


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory, fixtures: dict[str, Path]) -> Iterator[ObjectStore]:
    """An S3 store with the objects of all of them, each below a prefix."""
    server = ObjectStore(tmp_path_factory.mktemp("seaweed"))
    try:
        server.start()
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        for made, fixture in fixtures.items():
            store = fixture / "store"
            for path in sorted(store.rglob("*")):
                if path.is_file():
                    key = f"by/hand/{made}/{path.relative_to(store)}"
                    client.put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def restored(bucket: ObjectStore, fixtures: dict[str, Path]) -> Iterator[dict[tuple[str, str], Future[BareHost]]]:
    """All hosts, restored side by side; the result of each holds what went wrong on it."""
    bare = {(suite, made): BareHost(suite, made) for suite, made in WAYS if made in fixtures}
    try:
        with ThreadPoolExecutor() as pool:
            yield {
                key: pool.submit(restore, host, key[1], WAYS[key], fixtures[key[1]], bucket)
                for key, host in bare.items()
            }
    finally:
        for host in bare.values():
            host.remove()


def newest(fixture: Path) -> tuple[str, dict[str, Any]]:
    """The newest generation, and what is to come back."""
    expected = json.loads((fixture / "expected.json").read_text(encoding="utf-8"))
    return max(expected.items())


def restore(host: BareHost, made: str, way: str, fixture: Path, bucket: ObjectStore) -> BareHost:
    """Do what the text says, from the bare host to the files in their places."""
    identity, _expected = newest(fixture)
    text = (fixture / f"store/fluxhero/production/generations/{identity}/RESTORE.txt").read_text(encoding="utf-8")
    typed = {step: chosen(commands) for step, commands in steps(text).items()}
    host.start()
    host.copy(fixture / "keys", "/safe")
    if way == DIRECTORY:
        host.copy(fixture / "store", "/srv/target")
    has = host.bash(f"for tool in {' '.join(TOOLS)}; do command -v $tool; done; ls -A /opt")
    assert not has.stdout, f"the host is not bare: {has.stdout}"
    order = ["A", "B", way, "C", "D", "E", "F"]
    keys = json.loads(bucket.credentials_file("reader").read_text())
    answers = [bucket.endpoint, "us-east-1", f"{BUCKET}/by/hand/{made}", keys["access_key"], keys["secret_key"]]
    printed = host.type([command for step in order for command in typed[step]], "\n".join(answers) + "\n")
    by_step = {}
    for step in order:
        by_step[step], printed = printed[: len(typed[step])], printed[len(typed[step]) :]
    c = "".join(by_step["C"])
    assert "complete" in c and 'Good "fluxmaint-manifest" signature for fluxhero@production' in c and "genuine" in c
    assert "Unpacked and checked" in by_step["D"][-1]
    assert [answer.strip() for answer in by_step["E"]] == ["ok"] * len(typed["E"])
    assert "In place" in by_step["F"][-1]
    return host


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("made", MADE)
def test_a_bare_host_and_the_text_give_everything_back(
    restored: dict[tuple[str, str], Future[BareHost]], fixtures: dict[str, Path], suite: str, made: str
) -> None:
    if made not in fixtures:
        pytest.skip("only root can build the service under its real paths")
    host = restored[suite, made].result()
    _identity, expected = newest(fixtures[made])
    places = {record["path"]: record["sha256"] for record in expected["databases"].values()}
    places.update({path: entry["sha256"] for path, entry in expected["files"].items() if "sha256" in entry})
    words = " ".join(map(shlex.quote, places))
    digests = host.bash(f"sha256sum -z -- {words}").stdout.split("\0")[:-1]
    assert {line[66:]: line[:64] for line in digests} == places
    kept = {path: (entry["mode"], entry["owner"]) for path, entry in expected["files"].items() if "mode" in entry}
    words = " ".join(map(shlex.quote, kept))
    lines = host.bash(f"stat --printf '%04a %U %n\\0' -- {words}").stdout.split("\0")[:-1]
    found = [line.split(" ", 2) for line in lines]
    assert {path: (mode, owner) for mode, owner, path in found} == kept
    links = {path: entry["leads_to"] for path, entry in expected["files"].items() if "leads_to" in entry}
    links["/opt/fluxhero/current"] = "/opt/fluxhero/releases/r1"
    for path, target in links.items():
        assert host.bash(f"test -L {shlex.quote(path)} && realpath -m {shlex.quote(path)}").stdout.strip() == target
    # The service's user can write beside its database.
    beside = host.bash("cd / && su -s /bin/sh fluxhero -c 'touch /opt/fluxhero/data/trades.db-journal'")
    assert beside.returncode == 0, beside.stderr
