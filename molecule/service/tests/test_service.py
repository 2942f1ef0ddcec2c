# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The preflight says everything that does not match, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from testinfra.host import Host

from tests.support.plays import play, words

DATA = "/opt/fluxhero/data"


def preflight(host: Host, **variables: object) -> tuple[int, str]:
    played = play("molecule/service/converge.yml", "--limit", host.check_output("hostname"), **variables)
    return played.returncode, words(played)


@pytest.fixture
def stray_database(host: Host) -> Iterator[str]:
    path = f"{DATA}/stray.db"
    program = f"import sqlite3; c = sqlite3.connect('{path}'); c.execute('CREATE TABLE t (x)'); c.commit()"
    host.run_expect([0], f'python3 -c "{program}"')
    yield path
    host.run_expect([0], f"rm {path}")


def test_d77_front_end_switched_on_names_the_old_node_and_the_switch(host: Host) -> None:
    if host.system_info.codename != "bookworm":
        code, said = preflight(host)
        assert code == 0, said
        return
    code, said = preflight(host, service_frontend_enabled=True, service_frontend_node="node")
    assert code != 0
    assert "version 18." in said and "is older than 20.9, needed for the front end" in said
    assert "service_frontend_enabled: false" in said


def test_database_that_nobody_backs_up_is_found(host: Host, stray_database: str) -> None:
    code, said = preflight(host)
    assert code != 0
    assert stray_database in said


def test_mismatches_are_told_at_once(host: Host, stray_database: str) -> None:
    host.run_expect([0], "systemctl stop fluxhero-backend")
    try:
        code, said = preflight(host, service_min_free_bytes=10**15)
    finally:
        host.run_expect([0], "systemctl start fluxhero-backend")
    assert code != 0
    for mismatch in (stray_database, "liveness", "for the service"):
        assert mismatch in said


def test_wrong_type_is_refused_before_anything_runs(host: Host) -> None:
    code, said = preflight(host, service_units={"backend": "fluxhero-backend.service"})
    assert code != 0
    assert "service_units" in said
