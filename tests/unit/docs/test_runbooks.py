# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command in the runbooks exists: parsed by the real command line; playbooks, options, units and tools."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from fluxmaint.cli.main import parser

PROJECT = Path(__file__).resolve().parents[3]
RUNBOOKS = PROJECT / "docs" / "runbooks"
PAGES = sorted(RUNBOOKS.glob("*.md"))
WANTED = {
    *("restore-everything", "restore-one-database", "restore-one-file", "restore-to-a-point-in-time"),
    *("by-hand", "lost-key", "new-host", "backups-not-ok", "damaged-database"),
}
# What a Debian host has anyway, or what a runbook has installed before.
TOOLS = {
    *("age-keygen", "apt-get", "diff", "findmnt", "install", "journalctl", "less", "ls", "rclone", "rm", "sqlite3"),
    *("age", "export", "read", "systemctl"),
}
BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w*)\n(?P<body>.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:fluxmaint|ansible-playbook) [^`]+)`")
INLINE_VARIABLE = re.compile(r"`-e ([^`]+)`")


def commands(page: Path) -> list[str]:
    """Every command of a page, in blocks and in sentences."""
    text = page.read_text(encoding="utf-8")
    lines = [
        line.strip()
        for block in BLOCK.finditer(text)
        if block["kind"] == "sh"
        for line in block["body"].splitlines()
        if line.strip()
    ]
    return lines + INLINE.findall(BLOCK.sub("", text))


ALL = [(page.stem, command) for page in PAGES for command in commands(page)]


def options_of_roles() -> set[str]:
    names: set[str] = set()
    for file in PROJECT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(file.read_text(encoding="utf-8"))["argument_specs"].values():
            names |= set(entry.get("options") or {})
    return names


def variables(words: list[str]) -> set[str]:
    """Names of the variables that `-e` sets."""
    names: set[str] = set()
    for flag, value in zip(words, words[1:]):
        if flag == "-e" and value.startswith("{"):
            names |= set(json.loads(value))
        elif flag == "-e":
            names.add(value.partition("=")[0])
    return names


def mistakes(command: str) -> list[str]:
    """What is wrong with a command of a runbook."""
    words = shlex.split(command)
    if words[0] == "fluxmaint":
        with contextlib.redirect_stderr(io.StringIO()) as said:
            try:
                parser().parse_args(words[1:])
            except SystemExit:
                return [said.getvalue().strip().splitlines()[-1]]
        return []
    if words[0] == "ansible-playbook":
        return playbook_mistakes(words)
    found = [] if words[0] in TOOLS else [f"{words[0]} is no tool that a host has"]
    for unit in re.findall(r"\b(fluxmaint-[\w-]+)(@\w*)?\.(service|timer)", command):
        name = f"{unit[0]}{'@' if unit[1] else ''}.{unit[2]}"
        if not any(PROJECT.glob(f"roles/*/templates/{name}")):
            found.append(f"no role has the unit {name}")
    return found


def playbook_mistakes(words: list[str]) -> list[str]:
    [name] = [word for word in words if word.startswith("fluxhero.maintenance.")]
    playbook = PROJECT / "playbooks" / f"{name.rpartition('.')[2]}.yml"
    if not playbook.exists():
        return [f"there is no playbook {name}"]
    known = options_of_roles() | set(re.findall(r"\b[a-z_]+\b", playbook.read_text(encoding="utf-8")))
    found = [f"nothing has the variable {name}" for name in sorted(variables(words) - known)]
    flags = {word for word in words[1:] if word.startswith("-")} - {"-i", "-e", "--check", "--limit"}
    return found + [f"{flag} is not used here" for flag in sorted(flags)]


@pytest.mark.parametrize(("page", "command"), ALL, ids=[f"{page}-{number}" for number, (page, _c) in enumerate(ALL)])
def test_a_command_of_a_runbook_exists(page: str, command: str) -> None:
    assert mistakes(command) == [], f"{page}: {command}"


@pytest.mark.parametrize(
    "command",
    [
        "fluxmaint restore --generatoin latest",
        "fluxmaint status --now",
        "fluxmaint backup --kind hourly",
        "ansible-playbook -i INVENTORY fluxhero.maintenance.restore_all",
        "ansible-playbook -i INVENTORY fluxhero.maintenance.restore -e restore_generaton=latest",
        "ansible-playbook -i INVENTORY fluxhero.maintenance.restore -e '{\"restore_included\": []}'",
        "systemctl start fluxmaint-bakcup@daily.service",
        "restic restore latest",
    ],
)
def test_a_command_that_does_not_exist_is_noticed(command: str) -> None:
    assert mistakes(command)


def test_there_is_a_runbook_for_each_trouble_and_the_index_names_it() -> None:
    assert {page.stem for page in PAGES} - {"README"} == WANTED
    index = (RUNBOOKS / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\(([\w-]+)\.md\)", index)) == WANTED
    assert len(ALL) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere_and_words_after_e_are_options(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (RUNBOOKS / link).exists(), link
    for value in INLINE_VARIABLE.findall(text):
        assert variables(["-e", value]) <= options_of_roles(), value


@pytest.mark.parametrize("page", [page for page in PAGES if page.stem != "README"], ids=lambda page: page.stem)
def test_a_runbook_is_numbered_and_says_how_long_it_takes(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^1\. ", text, re.MULTILINE)
    assert "**How long**" in text


def test_what_is_told_of_status_is_what_status_says() -> None:
    """The words of the state, and the labels of its lines, are quoted from the program."""
    source = (PROJECT / "plugins/module_utils/service/backup_status.py").read_text(encoding="utf-8")
    quoted: list[Any] = re.findall(r"^((?:newest proven|newest|last backup|next backup|lease)) {2,}", "".join(
        block["body"] for block in BLOCK.finditer((RUNBOOKS / "README.md").read_text(encoding="utf-8"))
    ), re.MULTILINE)  # fmt: skip
    assert len(quoted) == 5
    for label in quoted:
        assert f'f"{label} ' in source, label
