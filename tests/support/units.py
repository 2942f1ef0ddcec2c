# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units of systemd on a host of the lab: their properties, their next time, and what their sandbox lets them do."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from testinfra.host import Host

PROBE = "fluxmaint-probe"
# Runs inside the sandbox of a unit, before its command. Arguments: directories that the unit has to write to.
SCRIPT = f"""\
refuse() {{
    if "$@" > /dev/null 2>&1; then echo "the sandbox allows: $*"; exit 99; fi
}}
for place in /etc /usr/local/bin /opt/fluxhero/releases /root; do refuse touch $place/{PROBE}; done
refuse test -e /tmp/{PROBE}
refuse unshare --user true
refuse hostname elsewhere
grep -q '^NoNewPrivs:.1$' /proc/self/status || {{ echo "it may gain rights"; exit 99; }}
bounding=$(sed -n 's/^CapBnd:.//p' /proc/self/status)
[ $((0x$bounding & 0x200000)) = 0 ] || {{ echo "it may administer the system"; exit 99; }}
for place in "$@"; do
    touch "$place/{PROBE}" && rm "$place/{PROBE}" || {{ echo "cannot write to $place"; exit 98; }}
done
"""


def properties(host: Host, unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit as systemd has them."""
    shown = host.check_output(f"systemctl show {unit} --property={','.join(names)}")
    return dict(line.split("=", 1) for line in shown.splitlines())


def assert_waits(host: Host, name: str, calendar: str, *, persistent: bool = True) -> None:
    """The timer is enabled, has a next time, starts the service of its name, and catches up when that is meant."""
    timer = host.service(f"{name}.timer")
    assert timer.is_enabled and timer.is_running
    shown = properties(host, f"{name}.timer", "TimersCalendar", "Persistent", "Unit")
    assert f"OnCalendar={calendar} ;" in shown["TimersCalendar"]
    assert "next_elapse=n/a" not in shown["TimersCalendar"]
    assert (shown["Persistent"], shown["Unit"]) == ("yes" if persistent else "no", f"{name}.service")


def start_held_in(host: Host, unit: str, *writable: str, status: int = 0) -> None:
    """Start a unit once, after a look from inside its sandbox: it may write to these directories and little else.

    Its command has to end with `status`; the look ends with others that no command has.
    """
    drop_in = f"/run/systemd/system/{unit}.d"
    probe = f"[Service]\nExecStartPre=/bin/sh /run/{PROBE} {' '.join(writable)}\n"
    host.run_expect([0], "printf %%s %s > %s && touch %s", SCRIPT, f"/run/{PROBE}", f"/tmp/{PROBE}")
    host.run_expect([0], "mkdir -p %s && printf %%s %s > %s", drop_in, probe, f"{drop_in}/probe.conf")
    host.run_expect([0], "systemctl daemon-reload")
    try:
        host.run(f"systemctl start {unit}")
        run = properties(host, unit, "InvocationID")["InvocationID"]
        said = host.run(f"journalctl --no-pager --output=cat _SYSTEMD_INVOCATION_ID={run}").stdout
        ended_as = properties(host, unit, "Result", "ExecMainStatus")
        assert ended_as == {"Result": "exit-code" if status else "success", "ExecMainStatus": str(status)}, said
    finally:
        host.run(f"systemctl stop {unit}; systemctl reset-failed {unit}; rm -r {drop_in} /run/{PROBE} /tmp/{PROBE}")
        host.run_expect([0], "systemctl daemon-reload")


def ended(host: Host, operation: str) -> dict[str, Any]:
    """How the last run of an operation ended, from the host's journal of operations."""
    shown = host.check_output(f"fluxmaint journal --operation {operation} --limit 1 --json")
    [entry] = json.loads(shown)["entries"]
    assert entry["event"] == "end"
    return dict(entry)
