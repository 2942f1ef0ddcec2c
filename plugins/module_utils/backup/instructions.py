# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RESTORE.txt: the commands with which a person restores a generation by hand.

The text is a bash script below an explanation in comments. Lines of the explanation that begin with `#` and
five spaces are commands to type; `tests/drill/test_bare_hands.py` types them on bare hosts. The script needs
only bash, age, zstd, tar, ssh-keygen and coreutils.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path, PurePosixPath

from ..core.clock import parse_utc, utc_text
from . import layout
from .crypto import MANIFEST_NAMESPACE
from .manifest import CacheFile, FileEntry, Part, Release

_MEGABYTE = 1 << 20
_STORED_BY = timedelta(hours=1)  # after its start, a generation lies on its targets

_HEAD = """\
# HOW TO RESTORE {service} ON {host} BY HAND
# Generation {id}, kind {kind}, begun {started_at}.
#
# Nothing of fluxhero.maintenance is needed, only a Linux with bash. Besides the store you need two files from
# your safe, which no store holds:
#   the age identity      a private key: a file with the line AGE-SECRET-KEY-1...
#   the allowed signers   a file with the line: {signer} ssh-ed25519 AAAA...
#
# Lines that begin with five spaces are commands. Type them in this order, in one shell, without the #, with your
# own paths. When one fails, stop and look under WHEN A STEP FAILS. Up to step F nothing is put into place.
#
# A. TOOLS, as root. Debian 12 and 13 and Ubuntu 22.04 and newer have all of them:
#     apt-get update
#     apt-get install --yes --no-install-recommends age zstd openssh-client sqlite3 rclone ca-certificates
#
# B. COPY the generation {with_cache}into a new directory of your own, on a disk with {megabytes} MB free:
#     umask 077
#     mkdir /path/to/work
#     cd /path/to/work
# From a directory:
#     mkdir generations
#     cp -R /path/to/target/{base}generations/{id} generations/
{copy_cache}\
# Or from an S3 bucket, with its endpoint, the bucket with its prefix, and a key that may read (rclone's notice of a
# missing configuration file means nothing):
#     export RCLONE_CONFIG_S3_TYPE=s3 RCLONE_CONFIG_S3_PROVIDER=Other
#     read -r -p 'Endpoint: ' RCLONE_CONFIG_S3_ENDPOINT
#     read -r -p 'Region, us-east-1 when it has none: ' RCLONE_CONFIG_S3_REGION
#     read -r -p 'Bucket and prefix: ' BUCKET
#     read -r -p 'Access key: ' RCLONE_CONFIG_S3_ACCESS_KEY_ID
#     read -r -s -p 'Secret key, not shown: ' RCLONE_CONFIG_S3_SECRET_ACCESS_KEY
#     export RCLONE_CONFIG_S3_ENDPOINT RCLONE_CONFIG_S3_REGION
#     export RCLONE_CONFIG_S3_ACCESS_KEY_ID RCLONE_CONFIG_S3_SECRET_ACCESS_KEY
#     rclone copy "s3:$BUCKET/{base}generations/{id}" generations/{id}
{rclone_cache}\
#
# C. WHO MADE IT? Check before anything else, this text too: compare these commands with those in your safe.
# The private key is not needed yet. They must print: complete, Good "{namespace}" signature, genuine.
#     cd generations/{id}
#     export SIGNERS=/path/to/allowed_signers
#     test "$(cat COMMIT)" = "$(sha256sum < MANIFEST.json | cut -c -64)" && echo complete
#     ssh-keygen -Y verify -f "$SIGNERS" -I {signer_word} -n {namespace} -s MANIFEST.json.sig < MANIFEST.json
#     grep -A 3 '"instructions": ' MANIFEST.json | grep -q "$(sha256sum < RESTORE.txt | cut -c -64)" && echo genuine
#
# D. CHECK, DECRYPT AND UNPACK below ./restored. Only here the private key is needed:
#     export IDENTITY=/path/to/age.key
#     bash RESTORE.txt
# It ends with: Unpacked and checked.
#
# E. LOOK. Each database must answer ok; then ask it what you want to know.
{look}\
#
# F. PUT INTO PLACE, as root, only after the service and whatever else opens its files is stopped{stop}.
{owners}\
#     ROOT= bash RESTORE.txt
# ROOT=/some/directory puts everything below that directory instead. What is replaced is moved to
# ./replaced-<time>. It ends with: In place.
{after}\
#
# WHEN A STEP FAILS
#   A: "Unable to locate package age": old distributions have none. Any other machine with age will do for D; copy
#      the directory there and ./restored back. Of OpenSSH, 8.2 or newer is needed.
#   B: copy again, or from another target: each target holds the same objects.
#   C: no "complete": the copy is not whole, or the generation was never completed and is no backup.
#      "Could not verify signature" or no "genuine": somebody changed it, or your list of signers is not the right
#      one. Do not go on with it. Take the generation from another target, or an older version of its objects (see
#      D), or another generation.
#   D: "FAILED": that object is damaged or was exchanged. Copy it again, or from another target. A bucket that keeps
#      versions still has what was overwritten: copy into another directory with
#      --s3-version-at {version_at} added to both commands of rclone, or another time when all was well.
#      "no identity matched any of the recipients": that is another private key. One of these is needed:
{recipients}\
#      Yours has this one: echo "SHA256:$(age-keygen -y "$IDENTITY" | tr -d '\\n' | sha256sum | cut -c -32)"
#      "No space left on device": remove ./restored, make room, and run it again.
#   F: it says what is missing. What it moved already lies in ./replaced-<time> under its old path; run it again.

# ---- 1. What is needed
set -euo pipefail
export LC_ALL=C.UTF-8
stop() {{
  echo "STOPPED: $*" >&2
  exit 1
}}
trap 'test $? = 0 || echo "STOPPED: see WHEN A STEP FAILS in RESTORE.txt" >&2' EXIT
for tool in age zstd tar ssh-keygen sha256sum; do
  command -v "$tool" > /dev/null || stop "$tool is not installed, step A"
done
test -r "${{SIGNERS:?set it to the file with the allowed signers, step C}}" || stop "$SIGNERS cannot be read"
test -r "${{IDENTITY:?set it to the file with your age identity, step D}}" || stop "$IDENTITY cannot be read"

# ---- 2. Is the generation complete, and who made it?
test "$(cat COMMIT)" = "$(sha256sum < MANIFEST.json | cut -c -64)" || stop "COMMIT is not that of MANIFEST.json"
ssh-keygen -Y verify -f "$SIGNERS" -I {signer_word} -n {namespace} -s MANIFEST.json.sig < MANIFEST.json

# ---- 3. Are the objects those that the host stored? The signed MANIFEST.json holds these digests too.
"""

_UNPACK = """
# ---- 4. Decrypt and unpack, unless that is done, and check what came out.
plain() { # object
  age -d -i "$IDENTITY" "$1" < /dev/null | zstd -q -d -c
}
unpack() {
  umask 077
  rm -rf restored restored.partial
  mkdir restored.partial
"""

_UNPACK_CACHE = """\
  while IFS= read -r line; do
    name="restored.partial/cache/${line#*  }"
    mkdir -p "$(dirname "$name")"
    plain "../../${line%%  *}" > "$name"
  done <<'FILES'
"""

_UNPACKED = """\
  sync
  mv restored.partial restored
}
if [ ! -d restored ]; then
  unpack
fi
"""

_PLACE = """
# ---- 5. Put the files into place, only when ROOT is given, and only while the service is stopped. What is
# replaced is moved aside, a database together with its -wal, -shm and -journal: a restored database beside an old
# -wal would silently be undone.
if [ -z "${ROOT+given}" ]; then
  echo "Unpacked and checked: see ./restored. Nothing was put into place."
  exit 0
fi
umask 022
replaced="$PWD/replaced-$(date -u +%Y%m%dT%H%M%SZ)"
has_owner() { # owner, group
  install -d -o "$1" -g "$2" owner && rmdir owner || stop "no user $1 or no group $2 here, or you are not root: step F"
}
closed() { # database
  for file in /proc/[0-9]*/fd/*; do
    if [ "$file" -ef "$ROOT$1" ]; then
      file="${file#/proc/}"
      stop "$ROOT$1 is open in process ${file%%/*}: stop the service first"
    fi
  done
}
aside() { # place
  if [ -e "$ROOT$1" ] || [ -L "$ROOT$1" ]; then
    mkdir -p -m 0700 "$replaced"
    mkdir -p "$replaced$(dirname "$1")"
    mv "$ROOT$1" "$replaced$1"
  fi
}
room() { # directory, owner, group: a service writes beside what it owns
  if [ ! -d "$ROOT$1" ]; then
    mkdir -p "$ROOT$1"
    chown "$2:$3" "$ROOT$1"
    chmod 0750 "$ROOT$1"
  fi
}
put() { # source, place, owner, group, mode
  aside "$2"
  install -D -o "$3" -g "$4" -m "$5" "$1" "$ROOT$2"
}
put_database() {
  for suffix in -wal -shm -journal; do
    aside "$2$suffix"
  done
  put "$@"
}
point() { # place of a link, target
  mkdir -p "$(dirname "$ROOT$1")"
  aside "$1"
  ln -s "$2" "$ROOT$1"
}
"""

_TAIL = """\
sync
echo "In place. Start the service. When it is well, remove this directory: ./restored is not encrypted."
"""


def render(
    *,
    identity: str,
    service: str,
    host: str,
    kind: str,
    started_at: str,
    signer: str,
    parts: Sequence[Part],
    cache: Sequence[CacheFile],
    release: Release | None,
    units: Sequence[str],
    halt_file: Path | None,
) -> bytes:
    """The text for one generation, with its real object names and digests.

    Args:
        release: the deployed code; its link is made anew when the generation holds the code.
        units: the service's units, to be stopped before anything is put into place.
        halt_file: the file that keeps the service from trading.
    """
    databases = [part for part in parts if part.name.startswith("db-")]
    archives = [part for part in parts if part not in databases]
    base = layout.base(service, host)
    with_code = any(part.name == "system" for part in archives)
    head = _HEAD.format(
        id=identity,
        service=service,
        host=host,
        kind=kind,
        started_at=started_at,
        version_at=utc_text(parse_utc(started_at) + _STORED_BY),
        base=base,
        signer=signer,
        signer_word=shlex.quote(signer),
        namespace=MANIFEST_NAMESPACE,
        megabytes=_megabytes(parts, cache),
        with_cache="and the directory cache " if cache else "",
        copy_cache=_typed([f"cp -R /path/to/target/{base}cache ."] if cache else []),
        rclone_cache=_typed([f'rclone copy "s3:$BUCKET/{base}cache" cache'] if cache else []),
        look=_typed(
            f"sqlite3 {shlex.quote('restored/' + _database_file(part))} 'PRAGMA integrity_check'" for part in databases
        ),
        stop=f" (systemctl stop {' '.join(units)})" if units else "",
        owners=_owners([*databases, *archives], cache),
        after=_after(halt_file, with_code),
        recipients="".join(f"#      {name}\n" for name in dict.fromkeys(n for part in parts for n in part.recipients)),
    )
    objects = [(part.stored.sha256, part.object) for part in parts]
    text = [head, _check(objects), _UNPACK]
    text += [_unpack(part) for part in parts]
    if cache:
        text += [_UNPACK_CACHE, *(f"{item.object}  {item.file.member}\n" for item in cache), "FILES\n"]
    text.append(_UNPACKED)
    unpacked = [(part.sha256, f"restored/{_database_file(part)}") for part in databases]
    unpacked += [
        (entry.sha256, f"restored/{part.name}/{entry.member}")
        for part in archives
        for entry in part.files
        if not entry.link
    ]
    unpacked += [(item.file.sha256, f"restored/cache/{item.file.member}") for item in cache]
    text += [_check(unpacked), _PLACE]
    text += [f"has_owner {_words(*pair)}\n" for pair in _pairs([*databases, *archives], cache)]
    text += [f"closed {_words(part.files[0].path)}\n" for part in databases]
    text += _rooms(databases, archives, cache)
    text += [_put(part.files[0], f"restored/{_database_file(part)}", "put_database") for part in databases]
    text += [_put(entry, f"restored/{part.name}/{entry.member}") for part in archives for entry in part.files]
    text += [_put(item.file, f"restored/cache/{item.file.member}") for item in cache]
    if release is not None and with_code:
        target = os.path.relpath(release.directory, PurePosixPath(release.link).parent)
        text.append(f"point {_words(release.link, target)}\n")
    return "".join([*text, _TAIL]).encode("utf-8", "surrogateescape")


def _typed(commands: Iterable[str]) -> str:
    """Commands that a person types."""
    return "".join(f"#     {command}\n" for command in commands)


def _megabytes(parts: Sequence[Part], cache: Sequence[CacheFile]) -> int:
    """Room for the objects and for what comes out of them; an archive is unpacked as it is decrypted."""
    stored = sum(part.stored.bytes for part in parts) + sum(item.stored[0].bytes for item in cache)
    plain = sum(part.bytes for part in parts) + sum(item.file.bytes for item in cache)
    return (stored + plain) // _MEGABYTE + 1


def _pairs(parts: Sequence[Part], cache: Sequence[CacheFile]) -> list[tuple[str, str]]:
    """Owners with their groups."""
    entries = [entry for part in parts for entry in part.files if not entry.link] + [item.file for item in cache]
    return sorted({(entry.owner, entry.group) for entry in entries})


def _owners(parts: Sequence[Part], cache: Sequence[CacheFile]) -> str:
    """Commands that make the users and groups which a new host lacks."""
    pairs = [pair for pair in _pairs(parts, cache) if pair != ("root", "root")]
    groups = sorted({group for _owner, group in pairs if group != "root" and not group.isdecimal()})
    users = sorted({owner for owner, _group in pairs if owner != "root" and not owner.isdecimal()})
    if not groups and not users:
        return ""
    commands = [f"getent group {_words(name)} > /dev/null || groupadd --system {_words(name)}" for name in groups]
    commands += [
        f"getent passwd {_words(name)} > /dev/null || useradd --system --no-create-home --shell /usr/sbin/nologin"
        f" {'--gid' if name in groups else '--user-group'}{' ' + _words(name) if name in groups else ''} {_words(name)}"
        for name in users
    ]
    return "# A new host lacks the owners of the files; these make them where they are missing.\n" + _typed(commands)


def _after(halt_file: Path | None, with_code: bool) -> str:
    text = ""
    if halt_file is not None:
        text += (
            "# Before you start the service: what is restored may be older than what the broker knows. This keeps it\n"
            f"# from trading until you have compared them: touch {_words(str(halt_file))}\n"
        )
    if with_code:
        text += (
            "# The code comes without what is built from it (virtual environment, node_modules): build that from the\n"
            "# lock files in it. The list of packages that the host had is in packages.txt.\n"
        )
    return text


def _rooms(databases: Sequence[Part], archives: Sequence[Part], cache: Sequence[CacheFile]) -> list[str]:
    """Directories of what the service writes, made before anything is put there."""
    files = [entry for part in [*databases, *archives] if part.name not in ("config", "system") for entry in part.files]
    files += [item.file for item in cache]
    rooms = {str(PurePosixPath(file.path).parent): (file.owner, file.group) for file in reversed(files)}
    return [f"room {_words(directory, *owner)}\n" for directory, owner in sorted(rooms.items())]


def _lines(digests: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for digest, name in digests)


def _check(digests: Iterable[tuple[str, str]]) -> str:
    return f"sha256sum --check --quiet <<'DIGESTS'\n{_lines(digests)}DIGESTS\n"


def _words(*words: str) -> str:
    return " ".join(shlex.quote(word) for word in words)


def _database_file(part: Part) -> str:
    return part.object[: -len(".zst.age")]


def _unpack(part: Part) -> str:
    start = f"  plain {_words(part.object)}"
    if part.name.startswith("db-"):
        return f"{start} > {_words('restored.partial/' + _database_file(part))}\n"
    directory = _words(f"restored.partial/{part.name}")
    return f"  mkdir {directory}\n{start} | tar -x -f - --no-same-owner -C {directory}\n"


def _put(entry: FileEntry, source: str, function: str = "put") -> str:
    if entry.link:
        return f"point {_words(entry.path, entry.link)}\n"
    return f"{function} {_words(source, entry.path, entry.owner, entry.group, entry.mode)}\n"
