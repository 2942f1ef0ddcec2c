# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""RESTORE.txt: the commands with which a person restores a generation by hand.

The text is a bash script with its explanation in comments. It needs only age, zstd, tar, ssh-keygen and
coreutils.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from . import layout
from .crypto import MANIFEST_NAMESPACE
from .manifest import CacheFile, FileEntry, Part

_HEAD = """\
# How to restore generation {id} of {service} on {host} by hand.
# Made from {started_at}, kind {kind}.
#
# Nothing of fluxhero.maintenance is needed: bash, age, zstd, tar, ssh-keygen (OpenSSH 8.2 or newer)
# and coreutils of any Linux will do. Copy this directory, and the directory cache if there is one, from
# the store as they are:
#     {base}generations/{id}/
#     {base}cache/
#
# Read this text, then run it in this directory; it checks, decrypts and unpacks below ./restored:
#     IDENTITY=/path/to/age.key SIGNERS=/path/to/allowed_signers bash RESTORE.txt
# Then stop the service, and run it again with ROOT= in front, as root, to put the files into place
# (ROOT=/some/directory puts them below that directory instead).

# ---- 1. What you have: the age identity (private key), and the list of allowed signers. Both come from
# your safe, never from the store. A line of the list reads: {signer} ssh-ed25519 AAAA...
set -euo pipefail
export LC_ALL=C.UTF-8
IDENTITY="${{IDENTITY:?set it to the file with your age identity}}"
SIGNERS="${{SIGNERS:?set it to the file with the allowed signers}}"

# ---- 2. Is the generation complete, and who made it?
test "$(cat COMMIT)" = "$(sha256sum < MANIFEST.json | cut -d ' ' -f 1)"
ssh-keygen -Y verify -f "$SIGNERS" -I {quoted_signer} -n {namespace} -s MANIFEST.json.sig < MANIFEST.json

# ---- 3. Are the objects those that the host stored? The signed MANIFEST.json holds these digests too, and
# the digest of this text.
"""

_UNPACK = """
# ---- 4. Decrypt and unpack, and check what comes out.
umask 077
rm -rf restored
mkdir restored
"""

_PLACE = """
# ---- 5. Put the files into place, only when ROOT is given, and only while the service is stopped and no
# process has a database open. What is replaced is moved to ./replaced, a database together with its -wal,
# -shm and -journal: a restored database beside an old -wal would silently be undone.
if [ -z "${ROOT+given}" ]; then
  echo "Unpacked and checked: see ./restored. Nothing was put into place."
  exit 0
fi
umask 022
put() { # source, place, owner, group, mode
  for suffix in "" -wal -shm -journal; do
    if [ -e "$ROOT$2$suffix" ]; then
      mkdir -p -m 0700 replaced
      mkdir -p "replaced$(dirname "$2")"
      mv "$ROOT$2$suffix" "replaced$2$suffix"
    fi
  done
  install -D -o "$3" -g "$4" -m "$5" "$1" "$ROOT$2"
}
"""

_TAIL = """\
sync
echo "In place. Start the service; remove ./replaced and ./restored when it has proven to be well."
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
) -> bytes:
    """The text for one generation, with its real object names and digests."""
    head = _HEAD.format(
        id=identity,
        service=service,
        host=host,
        kind=kind,
        started_at=started_at,
        base=layout.base(service, host),
        signer=signer,
        quoted_signer=shlex.quote(signer),
        namespace=MANIFEST_NAMESPACE,
    )
    databases = [part for part in parts if part.name.startswith("db-")]
    archives = [part for part in parts if part not in databases]
    text = [head, _check((part.stored.sha256, part.object) for part in parts), _UNPACK]
    text += [_unpack(part) for part in parts]
    if cache:
        text.append(_UNPACK_CACHE.format(files=_lines((item.file.sha256, item.file.member) for item in cache)))
    text.append(_check((part.sha256, f"restored/{_database_file(part)}") for part in databases))
    if cache:
        text.append(_check((item.file.sha256, f"restored/cache/{item.file.member}") for item in cache))
    text.append(_PLACE)
    text += [_put(part.files[0], f"restored/{_database_file(part)}") for part in databases]
    text += [_put(entry, f"restored/{part.name}/{entry.member}") for part in archives for entry in part.files]
    text += [_put(item.file, f"restored/cache/{item.file.member}") for item in cache]
    return "".join([*text, _TAIL]).encode("utf-8", "surrogateescape")


_UNPACK_CACHE = """\
while IFS= read -r line; do
  name="restored/cache/${{line#*  }}"
  mkdir -p "$(dirname "$name")"
  age -d -i "$IDENTITY" "../../cache/${{line%%  *}}.zst.age" < /dev/null | zstd -q -d -c > "$name"
done <<'FILES'
{files}FILES
"""


def _lines(digests: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{digest}  {name}\n" for digest, name in digests)


def _check(digests: Iterable[tuple[str, str]]) -> str:
    return f"sha256sum --check --quiet <<'DIGESTS'\n{_lines(digests)}DIGESTS\n"


def _database_file(part: Part) -> str:
    return part.object[: -len(".zst.age")]


def _unpack(part: Part) -> str:
    start = f'age -d -i "$IDENTITY" {shlex.quote(part.object)} | zstd -q -d -c'
    if part.name.startswith("db-"):
        return f"{start} > {shlex.quote('restored/' + _database_file(part))}\n"
    directory = shlex.quote(f"restored/{part.name}")
    return f"mkdir {directory}\n{start} | tar -x -f - --no-same-owner -C {directory}\n"


def _put(entry: FileEntry, source: str) -> str:
    place = shlex.quote(entry.path)
    if entry.link:
        return f'mkdir -p "$(dirname "$ROOT"{place})" && ln -s -f -n {shlex.quote(entry.link)} "$ROOT"{place}\n'
    words = (source, entry.path, entry.owner, entry.group, entry.mode)
    return f"put {' '.join(shlex.quote(word) for word in words)}\n"
