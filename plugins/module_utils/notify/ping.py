# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The dead man's switch: an address is asked after each success, and whoever is behind it alarms when it is silent.

The address is a secret, because anyone who knows it can keep the alarm quiet. It is read from a private file and
is in no argument, message or journal.
"""

from __future__ import annotations

import base64
import stat
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit

from ..core.clock import Clock
from ..core.config import Config
from ..core.errors import InputError, PreconditionError, StoreError
from ..core.fsio import read_json

_ATTEMPTS = 3
_PAUSE_S = 5.0


def ping(config: Config, name: str, *, clock: Clock | None = None) -> bool:
    """Ask the address of this name, such as `backup`.

    Returns:
        Whether there is one.

    Raises:
        StoreError: it did not answer with success, tried three times.
    """
    url = _url(config.notify.ping_file, name)
    if not url:
        return False
    clock = clock or Clock()
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            clock.sleep(_PAUSE_S)
        reason = _ask(url, config.notify.ping_timeout_s)
        if not reason:
            return True
    raise StoreError(f"the ping for {name} was not heard: {reason}", subject=f"ping {name}")


def _url(path: Path, name: str) -> str:
    if not path.exists():
        return ""
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PreconditionError("can be read by others than its owner", subject=str(path), remedy="chmod 0600")
    urls = read_json(path)
    url = urls.get(name, "") if isinstance(urls, dict) else None
    if not isinstance(url, str) or (url and not url.startswith(("http://", "https://"))):
        raise InputError(f"has no http or https address for {name}", subject=str(path))
    return url


def _ask(url: str, timeout_s: float) -> str:
    """Why there was no success, or nothing. Messages of the library may hold the address: only their kind is told."""
    try:
        with urllib.request.build_opener().open(_request(url), timeout=timeout_s) as answer:
            answer.read(1)
        return ""
    except urllib.error.HTTPError as error:
        return f"HTTP status {error.code}"
    except urllib.error.URLError as error:
        reason = error.reason
        return str(reason.strerror or type(reason).__name__) if isinstance(reason, OSError) else type(reason).__name__
    except Exception as error:  # noqa: BLE001 - a malformed address or answer must not end in a traceback with it
        return type(error).__name__


def _request(url: str) -> urllib.request.Request:
    """A name and password in the address go into a header: the library would ask the name service for them."""
    parts = urlsplit(url)
    userinfo, found, place = parts.netloc.rpartition("@")
    request = urllib.request.Request(parts._replace(netloc=place).geturl())  # noqa: S310 - `_url` has checked it
    if found:
        name, _colon, password = userinfo.partition(":")
        pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
        # Not for where the answer may redirect to.
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    return request
