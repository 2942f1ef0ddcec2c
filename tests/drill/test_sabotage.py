"""The drill can fail: a damaged generation is refused, by name, before anything of a service is touched.

Runs on the lab's hosts, against the real store, with the playbooks of the installed artifact.
"""

from __future__ import annotations

import pytest

from tests.lab import hosts, names
from tests.lab.drill import DrillError, back_up, damaged, on_host, playbook, prove
from tests.lab.drill_report import Phase, Report

NAMED = {
    "flip": "db-trades.sqlite.zst.age",
    "uncommit": "COMMIT",
    "signature": "MANIFEST.json.sig",
    "identity": "is not encrypted to this verifier's key",
}


@pytest.mark.parametrize("sabotage", list(NAMED))
def test_a_sabotaged_generation_is_refused_by_the_verifier(lab: Report, sabotage: str) -> None:
    back_up(Phase("backup", 0), lab)
    with damaged(lab, sabotage) as identity, pytest.raises(DrillError) as caught:
        prove(Phase("prove", 0), lab, identity)
    assert NAMED[sabotage] in str(caught.value)
    assert lab.generation_id in str(caught.value)
    assert "Production was not touched" in str(caught.value)


def test_a_recovery_from_a_damaged_generation_ends_before_the_host_is_touched(lab: Report) -> None:
    back_up(Phase("backup", 0), lab)
    hosts.create(["standby"], fresh=True)
    with damaged(lab, "flip"), pytest.raises(DrillError, match=r"db-trades\.sqlite\.zst\.age"):
        # The rehearsal: production runs, which a recovery would refuse before it fetches.
        playbook(
            "dr_drill",
            Phase("recover", 0),
            disaster_recovery_generation=lab.generation_id,
            dr_drill_report_file=str(names.LAB / "dr_drill.json"),
        )
    left = on_host("standby", "ls", "-A", "/opt", "/etc/systemd/system")
    assert "fluxhero" not in left
