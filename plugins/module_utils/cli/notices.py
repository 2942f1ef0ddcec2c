# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command that tells people: of a unit that failed, of backups that are overdue, of success by a ping."""

from __future__ import annotations

from ..core.clock import utc_text
from ..notify import failed_unit, hooks, ping, watch
from ..notify.event import RECOVERED, TEST, Event
from ..service import backup_status
from .command import DEGRADED, Answer, Commands, Context


def register(commands: Commands) -> None:
    """Add the commands of this module."""
    notify = commands.add("notify", _notify, "tell people through the hooks of this host, or ping on success")
    what = notify.add_mutually_exclusive_group(required=True)
    what.add_argument("--unit", metavar="NAME", help="this systemd unit has failed")
    what.add_argument("--overdue", action="store_true", help="tell when the backups are not as they should be")
    what.add_argument("--ping", metavar="NAME", help="ask the address of this name: what it stands for has succeeded")
    what.add_argument("--test", action="store_true", help="run every hook with an event that is only a test")


def _notify(context: Context) -> Answer:
    if context.options.ping:
        return _ping(context, context.options.ping)
    if context.options.overdue:
        return _overdue(context)
    config = context.config
    if context.options.unit:
        event = failed_unit.describe(config, context.options.unit, clock=context.clock)
    else:
        now = utc_text(context.clock.now())
        event = Event(TEST, config.service, config.host, now, "ok", "this is a test of the hooks")
    return _told(context, event)


def _told(context: Context, event: Event) -> Answer:
    config = context.config
    told = hooks.tell(config, event, journal=context.journal(config), clock=context.clock)
    lines = [told["event"]["message"]]
    lines += [f"  told by {item['hook']} in {item['duration_s']:.1f} s" for item in told["hooks"] if item["ok"]]
    lines += [f"  {problem}" for problem in told["problems"]]
    return Answer(told, "\n".join(lines), 0 if told["result"] == hooks.OK else DEGRADED)


def _ping(context: Context, name: str) -> Answer:
    pinged = ping.ping(context.config, name, clock=context.clock)
    text = f"pinged for {name}" if pinged else f"there is no address to ping for {name}"
    return Answer({"name": name, "pinged": pinged}, text)


def _overdue(context: Context) -> Answer:
    config = context.config
    state = backup_status.status(config, clock=context.clock)
    now = context.clock.now()
    codes = [reason["code"] for reason in state["reasons"]]
    memory = config.state_dir / "told.json"
    kind = watch.due(watch.last_told(memory), codes, now)
    if not kind:
        return Answer({"result": "ok", "state": state["result"], "told": ""}, f"{state['result']}: nothing new to tell")
    message = "the backups are well again" if kind == RECOVERED else "; ".join(r["text"] for r in state["reasons"])
    event = Event(
        event=kind,
        service=config.service,
        host=config.host,
        time=state["time"],
        result=state["result"],
        message=message,
        details={key: state[key] for key in ("reasons", "newest", "newest_proven", "due_by")},
    )
    answer = _told(context, event)
    if any(item["ok"] for item in answer.data["hooks"]):  # else somebody has yet to hear of it
        watch.note(memory, codes, now)
    return answer
