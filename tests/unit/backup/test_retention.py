"""Retention as a pure function: properties that hold for every history, and the policy's plain cases."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta, timezone

import pytest
from fluxmaint.backup.retention import Held, plan
from fluxmaint.core.config import Retention, parse_retention
from fluxmaint.core.errors import ConfigError
from hypothesis import given, settings
from hypothesis import strategies as st

START = datetime(2025, 1, 1, tzinfo=timezone.utc)
POLICY = Retention()


def held(hours: float, **facts: object) -> Held:
    at = START + timedelta(hours=hours)
    return Held(f"{at.strftime('%Y%m%dT%H%M%SZ')}-{int(hours) % 0xFFFFFF:06x}", **{"copies": 2, **facts})  # type: ignore[arg-type]


def day(number: float) -> datetime:
    return START + timedelta(days=number)


generations = st.builds(
    held,
    st.integers(0, 700 * 24),
    proven=st.booleans(),
    copies=st.integers(1, 3),
    kind=st.sampled_from(["daily", "daily", "full"]),
)
histories = st.lists(generations, max_size=60, unique_by=lambda item: item.id)
policies = st.builds(
    Retention, keep_days=st.integers(1, 60), keep_weekly=st.integers(0, 10), keep_monthly=st.integers(0, 14)
)
moments = st.floats(0, 800).map(day)


@given(histories, policies, moments)
def test_every_generation_is_decided_once(history: list[Held], policy: Retention, now: datetime) -> None:
    found = plan(history, policy, now, copies_needed=2)
    listed = [item.id for item in (*found.keep, *found.delete, *found.locked)]
    assert sorted(listed) == sorted(item.id for item in history)
    assert all(item.reason for item in (*found.keep, *found.delete, *found.locked))


@given(histories, policies, moments)
def test_the_anchors_are_never_deleted(history: list[Held], policy: Retention, now: datetime) -> None:
    deleted = {item.id for item in plan(history, policy, now).delete}
    present = [item for item in history if item.at <= now + timedelta(days=1)]
    for fits in (
        lambda item: True,
        lambda item: item.proven,
        lambda item: item.kind == "full",
        lambda item: item.proven and item.kind == "full",
    ):
        matching = [item.id for item in present if fits(item)]
        assert not matching or max(matching) not in deleted


@given(histories, policies, moments)
def test_each_deleted_one_has_a_newer_proven_one_on_two_targets(
    history: list[Held], policy: Retention, now: datetime
) -> None:
    unique = {item.id: item for item in history}
    for decision in plan(unique.values(), policy, now, copies_needed=2).delete:
        assert any(
            item.proven and item.copies >= 2 and item.id > decision.id and item.at <= now + timedelta(days=1)
            for item in unique.values()
        )


@given(histories, policies, moments)
def test_a_second_run_deletes_nothing(history: list[Held], policy: Retention, now: datetime) -> None:
    unique = {item.id: item for item in history}
    kept = plan(unique.values(), policy, now).kept()
    assert plan([unique[identity] for identity in kept], policy, now).delete == []


@settings(max_examples=200)
@given(histories, policies, moments, st.floats(0, 400), st.lists(generations, max_size=20))
def test_what_is_deleted_is_never_missed(
    history: list[Held], policy: Retention, now: datetime, days: float, more: list[Held]
) -> None:
    """Later, with newer generations beside, the plan over everything that ever was keeps nothing of what went."""
    later = now + timedelta(days=days)
    unique = {item.id: item for item in history if item.at <= now}
    newer = {item.id: item for item in more if now < item.at <= later}
    deleted = {item.id for item in plan(unique.values(), policy, now).delete}
    at_last = plan([*unique.values(), *newer.values()], policy, later)
    reasons = {item.id: item.reason for item in at_last.keep if item.id in deleted}
    assert not reasons


@given(histories, policies, moments, st.sampled_from([-1, 1]))
def test_a_clock_that_is_a_day_off_deletes_at_most_what_is_due_a_day_later(
    history: list[Held], policy: Retention, now: datetime, off: int
) -> None:
    unique = {item.id: item for item in history if item.at <= now}
    wrong = now + timedelta(days=off)
    deleted = {item.id for item in plan(unique.values(), policy, wrong).delete}
    present = [item for item in unique.values() if item.at <= wrong + timedelta(days=1)]
    if present:
        assert max(item.id for item in present) not in deleted
    young = {item.id for item in unique.values() if wrong - item.at <= timedelta(days=policy.keep_days)}
    assert not deleted & young


@given(histories, policies, moments)
def test_duplicates_change_nothing(history: list[Held], policy: Retention, now: datetime) -> None:
    unique = list({item.id: item for item in history}.values())
    assert plan(unique + unique, policy, now) == plan(unique, policy, now)


@given(histories, policies, moments, st.floats(-10, 400))
def test_what_is_locked_is_kept_until_then(
    history: list[Held], policy: Retention, now: datetime, days: float
) -> None:
    until = now + timedelta(days=days)
    unique = {item.id: item for item in history}
    free = plan(unique.values(), policy, now)
    locked = plan([dataclasses.replace(item, retained_until=until) for item in unique.values()], policy, now)
    due = [item.id for item in free.delete]
    assert [item.id for item in (locked.locked if until > now else locked.delete)] == due
    assert all("retained until" in item.reason for item in locked.locked)


def test_nothing_is_decided_about_nothing() -> None:
    assert plan([], POLICY, day(0)) == plan(iter([]), POLICY, day(500))


def test_a_year_of_days() -> None:
    history = [held(24 * number, proven=True) for number in range(500)]
    kept = plan(history, POLICY, day(499), copies_needed=2).keep
    reasons = [item.reason.split()[2] for item in kept if item.reason.startswith("of the")]
    assert (reasons.count("last"), reasons.count("week")) == (30, 8)
    old = [item.id for item in kept if item.reason.startswith(("of the week", "of the month"))]
    assert len({identity[:6] for identity in old}) == 12
    assert len(kept) == 1 + 30 + 8 + 12 - 1, "the newest one is kept as such; one is the best of its week and its month"


def test_a_month_without_backups_deletes_nothing_more() -> None:
    history = [held(24 * number, proven=True) for number in range(100)]
    now = plan(history, POLICY, day(99)).kept()
    survivors = [item for item in history if item.id in now]
    assert len(plan(survivors, POLICY, day(1000)).kept()) >= 1 + POLICY.keep_weekly


def test_without_a_proof_nothing_goes() -> None:
    history = [held(24 * number) for number in range(100)]
    found = plan(history, POLICY, day(99), copies_needed=2)
    assert not found.delete
    assert any("no newer generation is proven and held by two targets" in item.reason for item in found.keep)
    history[-1] = dataclasses.replace(history[-1], proven=True, copies=1)
    assert not plan(history, POLICY, day(99), copies_needed=2).delete
    assert plan(history, POLICY, day(99), copies_needed=1).delete


def test_a_proven_one_stands_for_its_week() -> None:
    history = [held(24 * number, proven=number in (3, 99)) for number in range(100)]
    assert history[3].id in plan(history, Retention(keep_weekly=50), day(99)).kept()


def test_the_future_is_kept_and_counts_for_nothing() -> None:
    history = [held(24 * number, proven=False) for number in range(100)]
    future = held(24 * 5000, proven=True)
    found = plan([*history, future], POLICY, day(99))
    assert not found.delete, "what claims to come from the future proves nothing"
    assert ("future" in {item.id: item.reason for item in found.keep}[future.id]) is True


@pytest.mark.parametrize(
    ("policy", "named"),
    [
        ({"keep_days": 0}, "retention.keep_days"),
        ({"keep_weekly": -1}, "retention.keep_weekly"),
        ({"keep_monthly": "12"}, "retention.keep_monthly"),
        ({"orphan_grace_days": 0}, "retention.orphan_grace_days"),
        ({"cache_grace_days": True}, "retention.cache_grace_days"),
        ({"keep_daily": 7}, "retention.keep_daily"),
        ([], "retention"),
    ],
)
def test_a_bad_policy_is_refused_by_name(policy: object, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        parse_retention(policy)


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_retention({"keep_days": 0, "keep_weekly": -1, "never": 1})
    assert len(caught.value.facts["mistakes"]) == 3
