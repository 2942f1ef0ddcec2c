from __future__ import annotations

import json

import pytest

from tests.lab.drill_report import Phase, Report, Sample


def good_report() -> Report:
    return Report(
        scenario="server_failure",
        started_at="2026-11-23T02:00:00Z",
        phases=[
            Phase("Deploy", 60.0),
            Phase("Recover", 100.0, recovery=True, parts=[{"name": "packages", "seconds": 30.0}]),
            Phase("Check", 5.5, recovery=True),
        ],
        generation_id="20261123T020000Z-7f3a2c",
        before=Sample("2026-11-23T02:05:00Z", 300, 15000),
        restored=Sample("2026-11-23T02:04:00Z", 240, 12000),
        digests={"trades": {"equal": True}, "positions": {"equal": True}},
        checks={"status": "ok", "front end": "ok"},
    )


def test_d74_a_drill_that_went_well_passes_with_its_numbers() -> None:
    report = good_report()
    evidence = report.evidence()
    assert evidence["result"] == "passed"
    assert (evidence["rto_s"], evidence["rpo_s"], evidence["rows_lost"]) == (105.5, 60, 3000)
    assert (evidence["rto_target_s"], evidence["rpo_target_s"]) == (7200, 86400)
    assert evidence["digests_equal"] is True
    assert json.loads(json.dumps(evidence))["phases"][1]["parts"][0]["name"] == "packages"
    table = report.table()
    assert "105.5 s" in table
    assert "  packages" in table
    assert "PASSED" in table


def test_what_is_set_up_while_the_service_runs_is_no_recovery_time() -> None:
    report = good_report()
    report.phases[1].afterwards = [{"name": "rotation", "seconds": 7.5}, {"name": "reports", "seconds": 2.0}]
    evidence = report.evidence()
    assert (evidence["rto_s"], evidence["total_s"]) == (96.0, 165.5)
    assert evidence["phases"][1]["afterwards"] == report.phases[1].afterwards
    assert "  (the service is up) rotation" in report.table()


@pytest.mark.parametrize(
    "change",
    [
        {"digests": {}},
        {"digests": {"trades": {"equal": False}}},
        {"checks": {}},
        {"checks": {"status": "no answer"}},
        {"before": None},
        {"restored": None},
        {"failure": "the proof failed"},
        {"phases": [Phase("Recover", 7201.0, recovery=True)]},
        {"restored": Sample("2026-11-23T02:04:00Z", 301, 12000)},
        {"restored": Sample("2026-11-23T02:04:00Z", 240, 15001)},
        {"before": Sample("2026-11-25T02:05:00Z", 200_000, 15000)},
    ],
)
def test_a_drill_with_anything_missing_wrong_or_late_fails(change: dict[str, object]) -> None:
    report = good_report()
    for name, value in change.items():
        setattr(report, name, value)
    assert report.evidence()["result"] == "failed"
    assert "FAILED" in report.table()


def test_a_phase_is_timed_even_when_it_fails() -> None:
    report = Report(scenario="server_failure", started_at="")
    with pytest.raises(RuntimeError), report.phase("Break"):
        raise RuntimeError
    assert report.phases[0].name == "Break"
    assert report.rto_s is None
    assert "not measured" in report.table()
