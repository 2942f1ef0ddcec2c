# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What lines are, what makes messages the same, and what may never be shown."""

from __future__ import annotations

import io
import json
import os
import re
import resource
from pathlib import Path

import pytest
from fluxmaint.core.errors import IntegrityError
from fluxmaint.logs import fingerprint, forms, journald, latency
from fluxmaint.logs.counting import Info, Rules
from fluxmaint.logs.fingerprint import masked, normalise, route
from fluxmaint.logs.redaction import clean, redact
from hypothesis import given
from hypothesis import strategies as st

from tests.support.log_host import LogHost

GUIDE = b"2026-01-05 14:03:22,123 - backend.trading - ERROR - "


@pytest.mark.parametrize(
    ("line", "level", "logger", "text", "hour"),
    [
        (GUIDE + b"Trade failed", "ERROR", "backend.trading", b"Trade failed", b"2026-01-05 14"),
        (
            b"2026-01-21 10:00:00.123 | WARNING  | backend.main:stop:98 - Emergency stop",
            "WARNING", "backend.main", b"Emergency stop", b"2026-01-21 10",
        ),
        (b'{"ts": "2026-01-05T14:03:22Z", "level": "warn", "msg": "hot"}', "WARNING", "", b"hot", b"2026-01-05T14"),
        (b'{"time": 1767621802.5, "levelname": "INFO", "message": "x"}', "INFO", "", b"x", b"1767621802"),
        (
            b'{"record": {"level": {"name":"TRACE"}, "message":"m", "name":"a", "time":{"repr":"2026-01-05 14:03"}}}',
            "DEBUG", "a", b"m", b"2026-01-05 14",
        ),
        (b"INFO:     Application startup complete.", "INFO", "", b"Application startup complete.", b""),
        (b"2026-01-05 14:03:22 INFO:     started\r", "INFO", "", b"started", b"2026-01-05 14"),
        (b"[2026-01-05 14:03:22] [CRITICAL] down", "CRITICAL", "", b"down", b"2026-01-05 14"),
    ],
)  # fmt: skip
def test_forms(line: bytes, level: str, logger: str, text: bytes, hour: bytes) -> None:
    read = forms.parse(line)
    assert (read.kind, read.level, read.logger, read.text) == (forms.Kind.HEAD, level, logger, text)
    assert line[read.hour] == hour


@pytest.mark.parametrize(
    "line",
    [
        b'INFO:     127.0.0.1:1234 - "GET /api/trades/17 HTTP/1.1" 404 Not Found',
        b'2026-01-05 14:03:22.123 | INFO     | uvicorn.access:send:4 - 127.0.0.1:1 - "GET /api/trades/2 HTTP/1.1" 404',
        b'{"level": "info", "msg": "r", "method": "GET", "path": "/api/trades/3?x", "status": 404, "latency_s": 1.5}',
    ],
)
def test_requests(line: bytes) -> None:
    assert Info(forms.parse(line), Rules()).request == ("GET", "/api/trades/<n>", "404")


@given(st.binary(max_size=300))
def test_any_bytes_are_read_and_shown(line: bytes) -> None:
    Info(forms.parse(line.replace(b"\n", b" ")), Rules())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", clean(line, 100))


@pytest.mark.parametrize(
    "line",
    [
        {"logger": "\ud800"},
        {"method": "GET\ud800", "path": "/", "status": 200},
        {"time": "2026-01-05T14:03:22+\u0660\u0665:\u0660\u0660"},
        {"logger": "\x1b[31m Bearer hunter2xhunter2x"},
    ],
)
def test_no_line_stops_the_reading_of_those_behind_it(line: dict[str, object], tmp_path: Path) -> None:
    document = {"time": "2026-01-05T14:03:22", "level": "ERROR", "message": "x", **line}
    host = LogHost(tmp_path)
    host.write([GUIDE + b"first", json.dumps(document).encode(), GUIDE + b"second"])
    host.read()
    assert host.read()["changed"] is False
    assert host.rows("SELECT sum(count) FROM facts WHERE name = 'events'") == [(3,)]
    assert "hunter2x" not in str(host.rows("SELECT type, text FROM messages"))


def test_an_endless_name_of_an_error_takes_no_time() -> None:
    assert forms.error_type("A." * 200_000 + "x: y") == ""


# What the patterns of `normalise` find, said in the simplest way.
TIME = r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:[.,]\d+)?)?)?(?:Z|[+-]\d\d:?\d\d\b)?|\b\d\d:\d\d:\d\d(?:[.,]\d+)?"
NUMBER = r"(?<![\w)\]])[-+]?\d+(?:[.,:]\d+)*(?:[eE][-+]?\d+)?|\d+(?:[.,:]\d+)*"
SYMBOL = r"(?<![\w<])[A-Z]{2,5}(?:[/_.-][A-Z]{1,5})?(?![\w>])"


@given(
    st.text(alphabet="aeEZTAB0123456789-+:.,/_()[]<> \n", max_size=60)
    | st.lists(
        st.sampled_from(["2026-01-05", "T", " ", "14:03", ":22", ",123", "Z", "+01:00", "x", "-1.5e-3", ")"])
    ).map("".join)
)
def test_patterns_that_are_fast_find_what_simple_ones_find(text: str) -> None:
    for fast, simple in ((fingerprint._TIME, TIME), (fingerprint._NUMBER, NUMBER), (fingerprint._SYMBOL, SYMBOL)):
        assert [match.span() for match in fast.finditer(text)] == [match.span() for match in re.finditer(simple, text)]


@given(
    st.lists(st.sampled_from(["0", "a", "12345678", "deadbeef", "0a0b0c0d", "g", "_", " ", "-", "8f4ff31e-78de-5857-"]))
)
def test_every_id_that_is_replaced_is_masked(parts: list[str]) -> None:
    line = "".join(parts)
    found = [match.span() for match in fingerprint._ID.finditer(line)]
    mask = masked(line.encode()).decode()
    assert [mask[begin:end].strip("0-") for begin, end in found] == ["f"] * len(found)
    kept = [index for index in range(len(line)) if not any(begin <= index < end for begin, end in found)]
    assert [mask[index] for index in kept] == [line[index] for index in kept]


DIGITS = bytes.maketrans(b"123456789", b"000000000")


@given(st.text(alphabet='ab cdefXYZ0123456789-:.,=/_{}"', max_size=120), st.randoms(use_true_random=False))
def test_which_digits_there_are_never_matters(text: str, pick: object) -> None:
    other = re.sub(r"\d", lambda _match: str(pick.randint(0, 9)), text)  # type: ignore[attr-defined]
    assert normalise(text.encode()) == normalise(other.encode())
    assert len(masked(text.encode())) == len(text.encode())


HEX = "".join(f"{number * 73 % 256:02x}" for number in range(1, 33))
UUID = "8f4ff31e-78de-5857-9999-aabbccddeeff"


@given(st.lists(st.sampled_from([" ", "x", "-", "deadbeef0", "0a0b0c0d", UUID, "f", "token is ", "commit ", HEX[:32]])))
def test_masked_lines_that_are_equal_are_the_same_message(parts: list[str]) -> None:
    line = "".join(parts)
    other = line.replace("deadbeef0", "facade999").replace("0a0b0c0d", "1b2c3d4e").replace(HEX[:32], HEX[32:])
    if masked(line.encode().translate(DIGITS)) == masked(other.encode().translate(DIGITS)):
        assert normalise(line.encode()) == normalise(other.encode())
    assert masked(b"id 0a0b0c0d0 x") == masked(b"id 5c5d5e5f5 x") == b"id f00000000 x"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Order 3f2a9b1c77aa of AAPL at -12.50 after 3 ms", "Order <id> of <symbol> at <n> after <n> ms"),
        ("seen 2026-01-05T14:03:22.1Z by GET", "seen <time> by GET"),
        ("BTC/USD 1,234.5 (8f4ff31e-78de-5857-9999-aabbccddeeff)", "<symbol> <n> (<id>)"),
    ],
)
def test_normalised(text: str, wanted: str) -> None:
    assert normalise(text.encode()) == wanted


def test_routes_have_no_query_and_no_ids() -> None:
    assert route("/api/candles/AAPL/17?token=secret#x") == "/api/candles/<symbol>/<n>"
    assert route("") == "/"


SECRETS = [
    "password=hunter2x", '"api_key": "hunter2x"', "token: 'hunter2x'", "Authorization: Bearer hunter2x.abc",
    "postgres://me:hunter2x@db/x", 'f(\\"secret\\": \\"hunter2x\\")', "AWS_SECRET_ACCESS_KEY=hunter2x",
    "Bearer hunter2xhunter2x", "AKIAHUNTER2XHUNTER2X", "cookie=hunter2x; path=/", "passphrase => hunter2x",
    "ghp_hunter2xhunter2x", "AGE-SECRET-KEY-1HUNTER2X", "eyJhunter2x.hunter2xx.hunter2x", "sk-hunter2xhunter2x",
    "Hunter2xHunter2xHunter2xHunter2xHunter2x", "APCA-API-SECRET-KEY: hunter2x", "(b'x-api-key', b'hunter2x')",
    "password=SecretStr('hunter2x')", "--password hunter2x", "https://hunter2xhunter2x@host/",
    "Authorization: ApiKey hunter2x", "postgres://me:hun/ter@hunter2x@db/x", r'"secret": "a\"hunter2x"',
    "-----BEGIN RSA PRIVATE KEY-----\nhunter2xhunter2x\nhunter2x\n-----END RSA PRIVATE KEY-----",
    "hooks.slack.com/services/T0/hunter2x",
    "the password is hunter2x", "Password was: hunter2x", "api key is 'a hunter2x'", "secret set to hunter2x",
    "the passphrase is correct horse hunter2x", "password changed to hunter2x", "password 'a hunter2x'",
    "password=a,hunter2x", "password=a;b&hunter2x", "token=a&b;hunter2x", "password=a)hunter2x", 'token=a"hunter2x',
    "password=correct horse hunter2x", "pwd: a, b hunter2x".replace(", ", ","), r"password=a\hunter2x",
    'Authorization: Digest username="bob", realm="a b", uri="/", response="hunter2x"',
    r'{"header": "Authorization: Digest username=\"bob\", nc=1, response=\"hunter2x\""}',
    'Digest username="bob", nonce="n", response="hunter2x", opaque="o"', 'Cookie: a="b c"; session="hunter2x"; d=e',
    r'\"Authorization\": \"Digest username=\\\"bob\\\", response=\\\"hunter2x\\\"', '--token "a hunter2x"',
    "API key: hunter2x", "{password:a,hunter2x}", "-eyJhunter2x.hunter2xx.hunter2x",
    r"Cookie: a=\"b c\"; s=hunter2x",
]  # fmt: skip


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_redacted_everywhere(secret: str, tmp_path: object) -> None:
    assert "hunter2x" not in redact(f"before {secret} after").lower()
    assert redact(f"before {secret} after").startswith("before ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("calling with {}", False),
        ("GET /hook/{}", False),
        ("X-Key {} used", False),
        ("backup_{}", False),
        ("session id {}", False),
        ("access key {}", False),
        ("response={}", False),
        ("decommit {}", False),
        ("sha256:{}", True),
        ("image@sha256:{}", True),
        ("SHA-256 {}", True),
        ("'digest': '{}'", True),
        ("commit {}", True),
        ("at revision ({})", True),
        ("trace_id={}", True),
        ('"request-id": "{}"', True),
        ("id {}", True),
        ("etag: sha256:{}", True),
    ],
)
@pytest.mark.parametrize("length", [32, 40, 64])
@pytest.mark.parametrize("upper", [False, True])
def test_lone_hexadecimal_digits_are_a_key_unless_a_word_says_that_they_are_not(
    text: str, shown: bool, length: int, upper: bool
) -> None:
    digits = HEX[:length].upper() if upper else HEX[:length]
    assert (digits in redact(text.format(digits))) is shown
    assert HEX[:31] in redact(text.format(HEX[:31]))


@pytest.mark.parametrize(
    "text",
    [
        "password is required",
        "the token is invalid, try again",
        "API key is not set",
        "signature was wrong",
        "the credentials are loaded",
        "sending the cookie to /login",
        "password authentication failed for user bob",
        "unexpected token '<' at 3",
        "token refresh took 3 ms",
        "Digest of the file is 12",
        "passing 3 of 4 checks",
        "12345678901234567890123456789012345678901234567890 shares",
        "8f4ff31e-78de-5857-9999-aabbccddeeff",
        "http://host:8000/path?a=b@c",
        "at deadbeefdeadbeefdeadbeefdeadbeefdeadbeef",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("GET /a?token=x,y&symbol=SPY HTTP/1.1", "GET /a?token=<redacted>&symbol=SPY HTTP/1.1"),
        ("password=a b;c, user=bob", "password=<redacted>, user=bob"),
        ("password=a b user=bob failed", "password=<redacted> user=bob failed"),
        ("password: a b error: refused", "password: <redacted> error: refused"),
        ("/a?password=x HTTP/1.1", "/a?password=<redacted> HTTP/1.1"),
        ("token=x for bob", "token=<redacted> for bob"),
        ("token is x for bob", "token is <redacted> for bob"),
        ('{"password": "a b", "user": "bob"}', '{"password": "<redacted>", "user": "bob"}'),
        ("f(token=x) done", "f(token=<redacted>) done"),
        ("postgres://me:a@b:c@db:1/x to http://h:80/y", "postgres://me:<redacted>@db:1/x to http://h:80/y"),
    ],
)
def test_what_stands_behind_a_secret_stays(text: str, wanted: str) -> None:
    assert redact(text) == wanted


HOSTILE = [
    "-eyJ", "eyJ", "x://a:", "x://a:1", "x://", "://@", "+", "|", " ", "\n", "\t\n", '"', "\\", "\\\"", "=", "=\"",
    "@", ",", ", ", "a", "A", "0", "a0", "aA0+", "-", "--", "<", "<password>", "password=", "password is ",
    "password ", "password=a ", "password=a,", "password=a,b=", "password=\"", "password=\\", "token=[",
    "token=Bearer ", "cookie: a=\"", "cookie:=", "authorization: ", "Digest nonce=", "Digest ", "Bearer ", "--token ",
    "-----BEGIN PRIVATE KEY-----", "-----", "sk-", "hooks.slack.com/services/", "commit ", "id", HEX, f"{HEX}_",
    f"{HEX}-", "a" * 40 + "\n", "key key", "pass pass=(",
]  # fmt: skip


def require_ended(text: str, cpu_s: int) -> None:
    """Redacted in a process that the kernel ends after so many seconds of its own."""
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
        redact(text)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, f"{text[:90]!r}... takes longer than its length"


@pytest.mark.parametrize("unit", ["-eyJ", "x://a:", "+", "|", "\n"])
def test_a_megabyte_of_anything_is_redacted_in_time(unit: str) -> None:
    """About a second; what grew with the square of the length would take hours."""
    require_ended("@ " + unit * (1_000_000 // len(unit)), 60)


def test_no_line_takes_longer_than_its_length() -> None:
    around = "x://a:b@c -----BEGIN eyJ password=b token is a Bearer basic digest \n"
    for unit in HOSTILE:
        require_ended(around + unit * (30_000 // len(unit)) + around, 3)


@given(st.lists(st.sampled_from(HOSTILE + SECRETS + ["x", "1", " "]), max_size=6), st.integers(0, 9))
def test_which_digits_secrets_have_never_matters(parts: list[str], digit: int) -> None:
    text = "".join(parts)
    zeros, others = re.sub("[0-9]", "0", text), re.sub("[0-9]", str(digit), text)
    assert re.sub("[0-9]", "0", redact(others)) == redact(zeros)


def test_d54_errors_are_told_by_their_type_not_by_their_level(tmp_path) -> None:  # type: ignore[no-untyped-def]
    host = LogHost(tmp_path)
    host.write([GUIDE + b"Trade execution failed: sqlite3.OperationalError: database is locked"])
    host.write([b"2026-01-05 14:03:23.000 | ERROR    | backend.main:failed:150 - API request failed: GET /x: refused"])
    host.write([b"Traceback (most recent call last):", b'  File "a.py", line 3, in f', b"ConnectionError: refused"])
    host.write([b"2026-01-05 14:03:24.000 | ERROR    | backend.risk:check:1 - limit reached"])
    host.read()
    document = host.summary()
    assert [item["type"] for item in document["errors_by_type"]] == [
        "ConnectionError", "backend.risk", "sqlite3.OperationalError",
    ]  # fmt: skip
    assert document["totals"]["tracebacks"] == document["totals"]["failed_trades"] == 1
    assert document["totals"]["api_errors"] == 1


def test_d55_messages_are_normalised_and_doubles_count_once(tmp_path) -> None:  # type: ignore[no-untyped-def]
    host = LogHost(tmp_path)
    lines = [GUIDE.replace(b"22,", b"%d," % second) + b"Order %d of AAPL failed" % second for second in range(10, 40)]
    host.write([line for line in lines for _handler in range(2)])
    host.read()
    document = host.summary()
    (message,) = document["messages"]
    assert (message["text"], message["count"]) == ("Order <n> of <symbol> failed", 30)
    assert (message["first_seen"], message["last_seen"]) == ("2026-01-05T14:03:10Z", "2026-01-05T14:03:39Z")
    assert len(message["samples"]) >= 1
    assert document["totals"]["doubles_dropped"] == 30


def test_new_since_the_deploy_and_the_release_of_each_message(tmp_path) -> None:  # type: ignore[no-untyped-def]
    host = LogHost(tmp_path)
    host.write([GUIDE + b"old trouble"])
    _deploy(host, "2026.1.1", "2026-01-05T10:00:00Z")
    host.read()
    _deploy(host, "2026.1.2", "2026-01-05T15:00:00Z")
    host.write([GUIDE.replace(b" 14:", b" 15:") + b"new trouble", GUIDE.replace(b" 14:", b" 15:") + b"old trouble"])
    host.read()
    document = host.summary()
    assert document["release"] == {"current": "2026.1.2", "deployed": "2026-01-05T15:00:00Z", "previous": "2026.1.1"}
    found = {message["text"]: (message["release"], message["new_since_deploy"]) for message in document["messages"]}
    assert found == {"old trouble": ("2026.1.1", False), "new trouble": ("2026.1.2", True)}


def _deploy(host: LogHost, name: str, time: str) -> None:
    import os

    from fluxmaint.core.clock import parse_utc

    link = host.root / "current"
    link.unlink(missing_ok=True)
    link.symlink_to(f"releases/{name}")
    os.utime(link, (parse_utc(time).timestamp(),) * 2, follow_symlinks=False)


@given(st.lists(st.floats(0.01, 1e6), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99]))
def test_percentiles_are_within_their_stated_error(values: list[float], fraction: float) -> None:
    from collections import Counter
    from math import ceil

    found = latency.percentile(Counter(latency.bucket(value) for value in values), fraction)
    true = sorted(values)[ceil(fraction * len(values)) - 1]
    assert found is not None
    assert abs(found - true) <= true * (latency.LATENCY_ERROR + 0.001)
    assert latency.percentile({}, fraction) is None


def field(name: bytes, value: bytes) -> bytes:
    if b"\n" in value:
        return name + b"\n" + len(value).to_bytes(8, "little") + value + b"\n"
    return name + b"=" + value + b"\n"


def exported(*messages: bytes, priority: bytes = b"6") -> bytes:
    entries = []
    for number, message in enumerate(messages):
        entries.append(
            field(b"__CURSOR", b"s=1;i=%d" % number)
            + field(b"__REALTIME_TIMESTAMP", b"%d" % (1767621802_000000 + number))
            + field(b"MESSAGE", message)
            + field(b"PRIORITY", priority)
            + field(b"_SYSTEMD_UNIT", b"fluxhero-backend.service")
        )
    return b"\n".join(entries) + b"\n"


def lines_of(data: bytes) -> list[bytes]:
    lines = journald.Lines()
    return [line for entry in journald.entries(io.BytesIO(data)) for line in lines.of(entry).lines]


def test_the_journals_export_format_becomes_lines() -> None:
    own = GUIDE + b"Trade failed"
    trace = [b"Traceback (most recent call last):", b'  File "a.py", line 3, in f', b"ValueError: x"]
    found = lines_of(exported(own, *trace, b"two\nlines", b"INFO:     started", priority=b"3"))
    head = b"2026-01-05T14:03:22.00000%dZ | %s | %s:: - %s"
    assert found == [
        own, *trace,
        head % (4, b"ERROR", b"fluxhero-backend.service", b"two"),
        head % (4, b"ERROR", b"fluxhero-backend.service", b"lines"),
        head % (5, b"INFO", b"journal", b"started"),
    ]  # fmt: skip
    assert all(forms.parse(line).kind is forms.Kind.HEAD for line in found[-3:])


def test_a_cut_off_export_gives_what_is_whole_and_rubbish_is_named() -> None:
    data = exported(b"one", b"two")
    assert len(lines_of(data[: len(data) - 1])) == 1
    with pytest.raises(IntegrityError):
        lines_of(b"MESSAGE\n" + (5).to_bytes(8, "little") + b"12345not the end\n")
    assert lines_of(exported(b"\x00\xff\n\x1b")) != []
