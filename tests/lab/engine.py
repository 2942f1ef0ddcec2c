# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The container engine and the system packages that the lab needs on the controller."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import subprocess
import time
from pathlib import Path

from . import names
from .steps import SetupError, output_of, run, say

# Command on the controller -> Debian package that brings it.
TOOLS = {"git": "git", "ssh": "openssh-client", "zstd": "zstd", "age": "age"}
# Some tests make file systems with these, rotate logs, or look at the log report in a browser and on paper; skipped
# without them.
USEFUL_TOOLS = {
    "mkfs.xfs": "xfsprogs",
    "mkfs.btrfs": "btrfs-progs",
    "logrotate": "logrotate",
    "chromium": "chromium",
    "pdftotext": "poppler-utils",
}
ENGINE_START_TIMEOUT_S = 60


def may_install() -> bool:
    """Whether this is a Debian-like machine where we are root."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None


def apt_install(*packages: str) -> None:
    """Install Debian packages; an outdated package index is refreshed first."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], log="apt", env=quiet)
    run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], log="apt", env=quiet)


def ensure_tools() -> None:
    """Make the controller's command line tools available, or say how to."""
    wanted = {**TOOLS, **USEFUL_TOOLS} if may_install() else TOOLS
    missing = {tool: package for tool, package in wanted.items() if shutil.which(tool) is None}
    if not missing:
        return
    packages = sorted(missing.values())
    if not may_install():
        raise SetupError(
            f"Not installed: {', '.join(sorted(missing))}. Install them and run this again, for example:\n"
            f"  sudo apt-get install {' '.join(packages)}    (Debian, Ubuntu)\n"
            f"  brew install {' '.join(sorted(missing))}    (macOS)"
        )
    say(f"    installing {', '.join(packages)}")
    apt_install(*packages)


def answers() -> bool:
    """Whether a container engine answers to the Docker command line."""
    return bool((output_of(["docker", "info", "--format", "{{.ServerVersion}}"]) or "").strip())


def ensure_engine() -> None:
    """Use the engine that answers; on a Debian where we are root, install and start one."""
    if answers():
        return
    if not may_install():
        raise SetupError(
            "No container engine answers (`docker info` fails). Start Docker, or install it:\n"
            "  https://docs.docker.com/engine/install/    (Linux; your user must be able to run `docker info`)\n"
            "  https://docs.docker.com/desktop/           (macOS, Windows with WSL 2)"
        )
    if shutil.which("dockerd") is None:
        say("    installing docker.io")
        apt_install("docker.io", "iptables", *([] if cgroups_mounted() else ["cgroupfs-mount"]))
    if not answers():
        start_engine()


def cgroups_mounted() -> bool:
    """Whether control groups, of either version, are mounted."""
    return any(line.split()[2].startswith("cgroup") for line in Path("/proc/mounts").read_text().splitlines())


def start_engine() -> None:
    """Start dockerd: by systemd where it is process 1, else in the background."""
    daemon: subprocess.Popen[bytes] | None = None
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker"], log="dockerd")
    else:
        say("    starting dockerd in the background")
        daemon = spawn_engine()
    deadline = time.monotonic() + ENGINE_START_TIMEOUT_S
    while not answers():
        # One that is still shutting down keeps a new one from starting: try again.
        if daemon is not None and daemon.poll() is not None:
            daemon = spawn_engine()
        if time.monotonic() > deadline:
            raise SetupError(
                f"dockerd did not answer within {ENGINE_START_TIMEOUT_S} s; see {names.LOGS / 'dockerd.log'}"
            )
        time.sleep(1)


def spawn_engine() -> subprocess.Popen[bytes]:
    """Start dockerd as a process that outlives this one."""
    remove_stale_state()
    names.LOGS.mkdir(parents=True, exist_ok=True)
    with (names.LOGS / "dockerd.log").open("ab") as log:
        return subprocess.Popen(
            ["dockerd"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def remove_stale_state() -> None:
    """Remove what an engine that died with its machine left in /run and what would stop a new one."""
    pid_file = Path("/run/docker.pid")
    if pid_file.is_file():
        command = Path(f"/proc/{pid_file.read_text().strip()}/comm")
        if not command.is_file() or command.read_text().strip() != "dockerd":
            pid_file.unlink()
    control = Path("/run/containerd/containerd.sock")
    if control.exists():
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(control))
            except OSError:
                control.unlink()


def architecture() -> str:
    """The engine's processor architecture in Docker's words: amd64 or arm64."""
    found = (output_of(["docker", "version", "--format", "{{.Server.Arch}}"]) or platform.machine()).strip()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(found, found)
