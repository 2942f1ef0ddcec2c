# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The first step of a restore: everything that can go wrong before the service is touched.

Fetch and verify the generation (or take what an earlier request has fetched), resolve owners by name,
compare with what is there, and put a ready file for each place on the file system of that place.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..core.clock import parse_utc
from ..core.config import Config
from ..core.errors import InputError, IntegrityError, PreconditionError
from ..core.fsio import free_bytes, fsync_dir, fsync_file, private_umask, read_json, sha256_file, write_json
from . import restore_plan
from .restore_plan import Contents, File, Item, Plan

STAGE_FILE = "stage.json"
_SPACE_MARGIN_BYTES = 1 << 20
_DIRECTORY_MODE = 0o750


class Source(Protocol):
    """Where generations come from: a store, keys to verify with, an identity to decrypt with."""

    def contents(self, request: restore_plan.Request) -> Contents:
        """The generation that `request` means, committed and with a good signature; nothing is decrypted."""

    def fetch(self, contents: Contents, files: Sequence[File], directory: Path) -> list[File]:
        """Fetch, verify, decrypt and check `files` into `directory`; each comes back with `staged` set."""


def stage_dir(config: Config, generation_id: str) -> Path:
    """Where the verified files of a generation wait."""
    return config.state_dir / "staged" / generation_id


def staged_contents(config: Config, request: restore_plan.Request, source: Source | None) -> Contents:
    """What the generation holds: from an earlier stage when that suffices, else from the source."""
    stage = stage_dir(config, request.generation) / STAGE_FILE
    if not request.before and request.generation not in ("", "latest") and stage.exists():
        return Contents.from_dict(read_json(stage))
    if source is None:
        raise InputError(
            f"generation {request.generation} has not been fetched to this host",
            subject=request.generation,
            untouched="the service",
            remedy="give the identity to decrypt it with",
        )
    return source.contents(request)


def acquire(config: Config, plan: Plan, source: Source | None) -> list[File]:
    """Have every file of the plan verified in this host's staging directory; fetch only what is not there."""
    contents = staged_contents(config, plan.request, source)
    wanted, left = restore_plan.select(config, contents, plan.request)
    plan.contents = contents
    plan.evidence["left_out"] = left
    restore_plan.save(config, plan)
    stage = stage_dir(config, contents.generation_id)
    known = _known(stage, {_key(file) for file in wanted})
    ready = [known[_key(file)] for file in wanted if _key(file) in known]
    lacking = [file for file in wanted if _key(file) not in known]
    plan.evidence["fetched_bytes"] = sum(file.bytes for file in lacking)
    if lacking:
        if source is None:
            raise InputError(
                f"{len(lacking)} files of generation {contents.generation_id} have not been fetched to this host",
                subject=contents.generation_id,
                untouched="the service",
                remedy="give the identity to decrypt them with",
            )
        with private_umask():
            stage.mkdir(mode=0o700, parents=True, exist_ok=True)
            require_space(stage, sum(file.bytes for file in lacking))
            directory = stage / f"fetch-{plan.id}"
            directory.mkdir(mode=0o700, exist_ok=True)
            fetched = source.fetch(contents, lacking, directory)
        _verify(lacking, fetched)
        ready += fetched
        known.update({_key(file): file for file in fetched})
    plan.evidence["target_problems"] = list(getattr(source, "problems", []))
    kept = Contents(**{**vars(contents), "files": [known.get(_key(file), file) for file in contents.files]})
    write_json(stage / STAGE_FILE, kept.as_dict())
    paths = {_key(file): file.path for file in wanted}
    return [File(**{**vars(file), "path": paths[_key(file)]}) for file in ready]


def _key(file: File) -> tuple[str, str, str]:
    return (file.part, file.name, "" if file.part == "databases" else file.path)


def _known(stage: Path, wanted: set[tuple[str, str, str]]) -> dict[tuple[str, str, str], File]:
    """The files of an earlier stage that are still there; those that are wanted still have their digest."""
    if not (stage / STAGE_FILE).exists():
        return {}
    files = {_key(file): file for file in Contents.from_dict(read_json(stage / STAGE_FILE)).files}
    there = {key: file for key, file in files.items() if file.staged and os.path.lexists(file.staged)}
    return {key: file for key, file in there.items() if key not in wanted or _intact(file)}


def _intact(file: File) -> bool:
    path = Path(file.staged)
    if file.link:
        return path.is_symlink() and os.readlink(path) == file.link
    return path.is_file() and not path.is_symlink() and sha256_file(path) == file.sha256


def _verify(wanted: Sequence[File], fetched: Sequence[File]) -> None:
    """What came is what was asked for, with the digests of the signed manifest."""
    came = {_key(file): file for file in fetched}
    for file in wanted:
        got = came.get(_key(file))
        if got is None or got.sha256 != file.sha256 or not _intact(got):
            raise IntegrityError(
                "the fetched file is not what the manifest describes", subject=file.path, untouched="the service"
            )


def require_space(directory: Path, needed: int) -> None:
    """Raise PreconditionError when `directory` cannot take `needed` bytes."""
    free = free_bytes(directory)
    if free < needed + _SPACE_MARGIN_BYTES:
        raise PreconditionError(
            f"{needed} bytes are needed, {free} are free",
            subject=str(directory),
            untouched="the service",
            remedy="make room on this file system, or prune restore points",
            needed_bytes=needed,
            free_bytes=free,
        )


def accounts(users: Iterable[str], groups: Iterable[str]) -> tuple[dict[str, int], dict[str, int]]:
    """User and group ids by name. Raises PreconditionError listing every name that this host does not have."""
    user_ids: dict[str, int] = {}
    group_ids: dict[str, int] = {}
    missing = []
    for name in sorted(set(users)):
        try:
            user_ids[name] = pwd.getpwnam(name).pw_uid
        except KeyError:
            missing.append(f"user {name}")
    for name in sorted(set(groups)):
        try:
            group_ids[name] = grp.getgrnam(name).gr_gid
        except KeyError:
            missing.append(f"group {name}")
    if missing:
        raise PreconditionError(
            f"this host does not have {', '.join(missing)}, to whom files of the generation belong",
            subject=missing[0],
            untouched="the service",
            remedy="apply the role app first: it makes the accounts",
        )
    return user_ids, group_ids


def build_items(config: Config, plan: Plan, files: Sequence[File]) -> list[Item]:
    """Decide for each file where it goes and whether it has to go there; writes nothing."""
    users, groups = accounts((file.owner for file in files), (file.group for file in files))
    points = config.state_dir / "restore-points" / plan.id
    items = []
    for file in files:
        named = Path(file.path)
        place = Path(os.path.realpath(named.parent)) / named.name if file.link else Path(os.path.realpath(named))
        if place.is_dir() and not place.is_symlink():
            raise PreconditionError("is a directory, a file belongs here", subject=str(place), untouched="the service")
        base = existing_parent(place)
        keep = points if same_mount(config.state_dir, base) else base / f".fluxmaint-restore-point-{plan.id}"
        item = Item(
            part=file.part,
            name=file.name or place.name,
            path=file.path,
            place=str(place),
            staged=file.staged,
            keep_dir=str(keep),
            sha256=file.sha256,
            bytes=file.bytes,
            uid=users[file.owner],
            gid=groups[file.group],
            owner=file.owner,
            group=file.group,
            mode=file.mode,
            modified=file.modified,
            action="replace",
            link=file.link,
        )
        item.action = "keep" if same(item) else "replace" if os.path.lexists(item.place) else "create"
        items.append(item)
    return items


def same(item: Item) -> bool:
    """Whether the place already holds this file: content, owner and mode, and nothing beside it."""
    place = Path(item.place)
    try:
        status = place.lstat()
        if item.link:
            return place.is_symlink() and os.readlink(place) == item.link
        if place.is_symlink() or not place.is_file():
            return False
        if any(Path(path).exists() for path in item.companions()[1:]):
            return False
        expected = (item.uid, item.gid, item.mode, item.bytes)
        if (status.st_uid, status.st_gid, status.st_mode & 0o7777, status.st_size) != expected:
            return False
        return sha256_file(place) == item.sha256
    except FileNotFoundError:
        return False


def config_changes(items: Sequence[Item]) -> list[dict[str, Any]]:
    """Configuration files that exist with other content: the names of the keys that differ, never a value."""
    changes = []
    for item in items:
        place = Path(item.place)
        if item.part != "config" or item.action != "replace" or sha256_file(place) == item.sha256:
            continue
        keys = restore_plan.env_diff(place.read_bytes(), Path(item.staged).read_bytes()) if item.staged else {}
        changes.append({"path": item.path, **keys})
    return changes


def prepare(config: Config, plan: Plan) -> None:
    """Put a ready file on the file system of each place: owner, mode and content as they will be."""
    needed: dict[Path, int] = {}
    for item in plan.changing:
        base = existing_parent(Path(item.place))
        if not same_mount(Path(item.staged).parent, base):
            needed[base] = needed.get(base, 0) + item.bytes
    for base, size in needed.items():
        require_space(base, size)
    plan.own_dirs = [str(base / f".fluxmaint-restore-{plan.id}") for base in needed]
    plan.made_dirs = sorted({str(d) for item in plan.changing for d in missing_parents(Path(item.place))})
    restore_plan.save(config, plan)
    for number, item in enumerate(plan.changing):
        base = existing_parent(Path(item.place))
        if base in needed:
            directory = base / f".fluxmaint-restore-{plan.id}"
            with private_umask():
                directory.mkdir(mode=0o700, exist_ok=True)
                copy = directory / str(number)
                copy.unlink(missing_ok=True)
                _copy(item, copy)
            item.staged = str(copy)
        _dress(item)
    for item in plan.changing:
        fsync_dir(Path(item.staged).parent)


def _copy(item: Item, copy: Path) -> None:
    try:
        shutil.copyfile(item.staged, copy, follow_symlinks=False)
    except OSError as error:
        raise PreconditionError(
            f"cannot be prepared beside its place: {error.strerror}", subject=item.place, untouched="the service"
        ) from None
    if not item.link and sha256_file(copy) != item.sha256:
        raise IntegrityError("the copy beside its place differs", subject=item.place, untouched="the service")


def _dress(item: Item) -> None:
    """Give the ready file its owner and mode, so that renaming it is all that is left to do."""
    path = Path(item.staged)
    status = path.lstat()
    if (status.st_uid, status.st_gid) != (item.uid, item.gid):
        try:
            os.chown(path, item.uid, item.gid, follow_symlinks=False)
        except PermissionError:
            raise PreconditionError(
                f"this process may not give files to {item.owner}:{item.group}",
                subject=item.place,
                untouched="the service",
                remedy="run as root",
            ) from None
    if not item.link:
        os.chmod(path, item.mode)
        if item.modified:
            seconds = parse_utc(item.modified).timestamp()
            os.utime(path, (seconds, seconds))
        fsync_file(path)


def existing_parent(place: Path) -> Path:
    """The nearest directory above `place` that exists."""
    parent = place.parent
    while not parent.is_dir():
        parent = parent.parent
    return parent


def same_mount(one: Path, other: Path) -> bool:
    """Whether a file can be renamed between two directories: one file system, and the same mount of it."""
    return _mount(existing_parent(one / "x")) == _mount(existing_parent(other / "x"))


def _mount(directory: Path) -> tuple[int, str]:
    # Two bind mounts of one file system share the device number, and rename still fails between them.
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        device = os.fstat(descriptor).st_dev
        try:
            lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
        except OSError:
            return device, ""
        return device, next((line for line in lines if line.startswith("mnt_id:")), "")
    finally:
        os.close(descriptor)


def missing_parents(place: Path) -> list[Path]:
    """The directories above `place` that do not exist, outermost first."""
    missing: list[Path] = []
    parent = place.parent
    while not parent.is_dir():
        missing.insert(0, parent)
        parent = parent.parent
    return missing


def make_parents(place: Path, uid: int, gid: int) -> None:
    """Make the missing directories above `place`, for the owner of the file that goes there."""
    for directory in missing_parents(place):
        directory.mkdir(mode=_DIRECTORY_MODE)
        os.chmod(directory, _DIRECTORY_MODE)
        if (directory.stat().st_uid, directory.stat().st_gid) != (uid, gid):
            os.chown(directory, uid, gid)
        fsync_dir(directory.parent)


def discard(config: Config, plan: Plan, *, keep_stage: bool) -> None:
    """Remove what this restore has laid out and does not need any more; restore points stay."""
    for directory in plan.own_dirs:
        _remove(Path(directory), f".fluxmaint-restore-{plan.id}")
    if plan.contents is not None and not keep_stage:
        stage = stage_dir(config, plan.contents.generation_id)
        _remove(stage, plan.contents.generation_id)


def remove_stages(config: Config) -> None:
    """Remove every fetched generation: decrypted data does not lie around longer than needed."""
    directory = config.state_dir / "staged"
    if directory.is_dir():
        for stage in directory.iterdir():
            _remove(stage, stage.name)


def _remove(directory: Path, name: str) -> None:
    if directory.name == name and directory.is_dir() and not directory.is_symlink():
        shutil.rmtree(directory)
