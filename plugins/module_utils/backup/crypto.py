# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression, encryption and signatures, by the tools that a person restoring by hand would use.

Data flows through `zstd` and `age` as streams: memory does not grow with the size of the data, and both
digests, of what goes in and of what comes out, are taken in the same pass.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ..core import syscalls
from ..core.errors import CommandError, IntegrityError, PreconditionError, TimeoutExceeded
from ..core.fsio import complete_file, private_umask
from ..core.priority import background, step_back
from ..core.progress import BYTES, Report
from ..core.run import last_words, require_tool, run
from . import recipients as age_keys

MANIFEST_NAMESPACE = "fluxmaint-manifest"
PROOF_NAMESPACE = "fluxmaint-proof"
LEAST_RECIPIENTS = 2
_CHUNK = 1 << 20
_SIGN_TIMEOUT_S = 60
_WRITE_BACK = 16 << 20
_LOOK_S = 0.005
_TELL_S = 0.02
_BLOCK = 1 << 18  # stays in a core's own cache
_REFUSED = re.compile(rb"(?i)no space left|quota exceeded|file too large|input/output error|read-only file system")
_F_SETPIPE_SZ = 1031  # fcntl.F_SETPIPE_SZ, which Python knows from 3.10 on
_MOST_THREADS = 2  # more would take the trading service's processors


@dataclass(frozen=True)
class Digest:
    """Size in bytes and SHA-256 of some data."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Encrypted:
    """What went into an encrypted file, and what the file is."""

    plain: Digest
    stored: Digest


class DigestingWriter:
    """Writes to a stream and digests what it wrote."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._bytes = 0

    def write(self, data: bytes) -> int:
        """Write all of `data`."""
        self._stream.write(data)
        self._hash.update(data)
        self._bytes += len(data)
        return len(data)

    def digest(self) -> Digest:
        """Of everything written so far."""
        return Digest(self._bytes, self._hash.hexdigest())


def read_recipients(path: Path) -> list[str]:
    """The age X25519 recipients in a file, one a line.

    Raises PreconditionError when there are fewer than two different ones: losing one key must not lose the backups.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="ascii").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise PreconditionError(f"the list of recipients cannot be read: {error}", subject=str(path)) from None
    recipients = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    for number, recipient in enumerate(recipients, start=1):
        wrong = age_keys.mistake(recipient)
        if wrong:
            named = f"recipient {number} ({recipient[:12]}...)"
            raise PreconditionError(
                f"{named} is not a public age key: it {wrong}",
                subject=str(path),
                untouched="everything",
                remedy="copy it once more from the file that age-keygen has made",
            )
    if len(recipients) < LEAST_RECIPIENTS:
        raise PreconditionError(
            f"names {len(recipients)} recipients; at least {LEAST_RECIPIENTS} are needed, operator and escrow",
            subject=str(path),
            untouched="everything",
            remedy="add the public key of a second identity that is kept elsewhere",
        )
    return recipients


def encrypt(
    produce: Callable[[DigestingWriter], None],
    dest: Path,
    *,
    recipients_file: Path,
    level: int,
    timeout_s: float,
    nice: int = 0,
) -> Encrypted:
    """Compress and encrypt what `produce` writes into the new private file `dest`, durably.

    The file has its name only once it is complete; after any failure there is none.

    Args:
        nice: the priority of compression, encryption and digests, at most; the calling thread keeps its own.
    """
    with private_umask(), complete_file(dest) as output:
        with Pipeline(_encryption(recipients_file, level), timeout_s, output, nice=nice) as pipeline:
            plain = DigestingWriter(pipeline.input)
            with contextlib.suppress(BrokenPipeError):  # then the exit status tells why
                produce(plain)
            pipeline.finish()
        pipeline.check()
    return Encrypted(plain.digest(), pipeline.output_digest())


def encrypt_file(
    source: IO[bytes],
    dest: Path,
    *,
    recipients_file: Path,
    level: int,
    timeout_s: float,
    nice: int = 0,
    progress: Report | None = None,
    size: int | None = None,
) -> Encrypted:
    """Compress and encrypt an open file that nobody changes, from its present position; see `encrypt`.

    The compressor reads the file itself, and the digest is taken of what it has just read.

    Args:
        progress: told how many bytes of `size` are read; what it raises ends the work.
    """
    with private_umask(), complete_file(dest) as output:
        with Pipeline(_encryption(recipients_file, level), timeout_s, output, source, nice=nice) as pipeline:
            plain = pipeline.follow_source(progress, size)
            pipeline.finish()
        pipeline.check()
    return Encrypted(plain, pipeline.output_digest())


def _encryption(recipients_file: Path, level: int) -> list[list[str]]:
    zstd = [require_tool("zstd"), "-q", "-c", f"-{level}", f"-T{min(os.cpu_count() or 1, _MOST_THREADS)}"]
    return [zstd, [require_tool("age"), "-e", "-R", str(recipients_file)]]


def decrypt(
    chunks: Iterable[bytes],
    dest: Path,
    *,
    identity_file: Path,
    stored: Sequence[Digest],
    plain: Digest,
    subject: str,
    timeout_s: float,
) -> None:
    """Verify, decrypt and decompress into the new private file `dest`, in one pass.

    The file gets its name only after both digests agree, so nothing is used that was not verified.

    Args:
        stored: the encrypted forms that are acceptable.
        plain: what must come out.
        subject: the object's key, for errors.

    Raises:
        IntegrityError: the object is not what the manifest says, or the identity does not open it.
        CommandError: a tool was killed.
    """
    if not identity_file.is_file():
        raise PreconditionError("the identity file is missing", subject=str(identity_file), object=subject)
    age = [require_tool("age"), "-d", "-i", str(identity_file)]
    zstd = [require_tool("zstd"), "-q", "-d", "-c"]
    with private_umask(), complete_file(dest) as output:
        received = hashlib.sha256()
        size = 0
        with Pipeline([age, zstd], timeout_s, output, limit=plain.bytes) as pipeline:
            feeding = True
            for chunk in chunks:
                received.update(chunk)
                size += len(chunk)
                if feeding:
                    try:
                        pipeline.input.write(chunk)
                    except BrokenPipeError:
                        # Read on: whether the object is damaged matters more than what age thought of it.
                        feeding = False
            pipeline.finish()
        got = Digest(size, received.hexdigest())
        if got not in stored:
            raise IntegrityError(
                f"the stored object is not what the manifest describes: {got.bytes} bytes, SHA-256 {got.sha256}",
                subject=subject,
                expected=[digest.sha256 for digest in stored],
                received=got.sha256,
            )
        pipeline.check_decryption(subject, identity_file)
        written = pipeline.output_digest()
        if written != plain:
            raise IntegrityError(
                "the decrypted content is not what the manifest describes",
                subject=subject,
                expected=plain.sha256,
                received=written.sha256,
            )


class Pipeline:
    """Two commands in a row, the second one writing to a file that a thread of this process digests meanwhile.

    Data does not pass through this process where it need not: Python would be the slowest part.
    Leaving the context kills whatever still runs. After `timeout_s` seconds both are killed, and the next
    call raises TimeoutExceeded.

    Args:
        output: what the second command writes to, an empty file open for reading, too.
        source: what the first command reads, from its present position; without it, what is written to `input`.
        limit: more bytes than this in the output are an error.
        nice: the priority of the commands, and of the threads that digest beside them, at most.
    """

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        timeout_s: float,
        output: IO[bytes],
        source: IO[bytes] | None = None,
        *,
        limit: int | None = None,
        nice: int = 0,
    ) -> None:
        self._nice = nice
        self._commands = commands
        self._timeout_s = timeout_s
        self._source = source
        self._limit = limit
        self._processes: list[subprocess.Popen[bytes]] = []
        self._errors: list[IO[bytes]] = []
        self._said: list[bytes] = []
        self._expired = threading.Event()
        self._over = threading.Event()
        self._output = output
        self._written = _Follower(output.fileno())
        self._follower = threading.Thread(target=self._follow_output, daemon=True)
        self._behind: threading.Thread | None = None
        self._unread: BaseException | None = None
        self._trouble: BaseException | None = None
        self._watchdog = threading.Timer(max(timeout_s, 0.01), self._expire)
        self._watchdog.daemon = True

    def __enter__(self) -> Pipeline:
        try:
            previous: IO[bytes] | int = subprocess.PIPE
            if self._source is not None:
                previous = self._source
                self._read = _Follower(previous.fileno(), previous.tell())
                os.lseek(previous.fileno(), previous.tell(), os.SEEK_SET)
                self._behind = threading.Thread(target=self._follow_source, args=(previous.fileno(),), daemon=True)
            for number, command in enumerate(self._commands):
                errors = tempfile.TemporaryFile()
                self._errors.append(errors)
                last = number == len(self._commands) - 1
                process = subprocess.Popen(
                    list(command),
                    stdin=previous,
                    stdout=self._output if last else subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, "LC_ALL": "C.UTF-8"},
                    start_new_session=True,  # without a terminal nobody can be asked for a passphrase
                )
                self._processes.append(process)
                step_back(process.pid, self._nice)  # in its session it leads a group of its own
                if isinstance(previous, int):
                    self.input = cast("IO[bytes]", process.stdin)
                    _widen(self.input)
                elif previous is not self._source:
                    previous.close()  # so that the first command gets SIGPIPE when the second one dies
                if not last:
                    previous = cast("IO[bytes]", process.stdout)
                    _widen(previous)
        except BaseException:
            self._stop()
            raise
        self._watchdog.start()
        self._follower.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def follow_source(self, progress: Report | None, size: int | None) -> Digest:
        """Digest the source behind the first command until that has ended."""
        if self._behind is None:
            raise ValueError("there is no source to follow")
        self._behind.start()
        over = False
        while not over:
            self._behind.join(_TELL_S)
            over = not self._behind.is_alive()
            if progress is not None:  # at the end, too: who watches has the last word
                progress(BYTES, {"done": self._read.bytes, "total": size})
        if self._unread is not None:
            raise self._unread
        return self._read.digest()

    def _follow_source(self, descriptor: int) -> None:
        first = self._processes[0]
        try:
            with background(self._nice):
                while first.poll() is None:
                    if not self._read.catch_up(os.lseek(descriptor, 0, os.SEEK_CUR), _CHUNK):
                        self._over.wait(_LOOK_S)
                size = os.fstat(descriptor).st_size
                while not self._over.is_set() and self._read.catch_up(size, _CHUNK):
                    pass
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            self._unread = error

    def output_digest(self) -> Digest:
        """Of what the last command has written, once `finish` has returned."""
        return self._written.digest()

    def _follow_output(self) -> None:
        descriptor = self._output.fileno()
        begun = 0
        try:
            with background(self._nice):
                over = False
                while not over:
                    over = self._over.wait(_LOOK_S)
                    size = os.fstat(descriptor).st_size
                    if self._limit is not None and size > self._limit:
                        raise IntegrityError(f"more than {self._limit} bytes come out")
                    self._written.catch_up(size)
                    if size - begun >= _WRITE_BACK:  # so that the fsync at the end has little left to do
                        syscalls.start_writing(descriptor, begun, size - begun)
                        begun = size
        except BaseException as error:  # noqa: BLE001 - handed to the caller
            self._trouble = error
            self._kill()

    def finish(self) -> None:
        """Close the input and wait until everything has come out."""
        if self._source is None:
            with contextlib.suppress(BrokenPipeError):
                self.input.close()
        for process in self._processes:
            process.wait()
        self._over.set()
        self._follower.join()
        self._watchdog.cancel()
        for errors in self._errors:
            errors.seek(0)
            self._said.append(errors.read())
        if self._expired.is_set():
            names = " | ".join(Path(command[0]).name for command in self._commands)
            raise TimeoutExceeded(f"{names} did not finish within {self._timeout_s:g} s", subject=names)
        if isinstance(self._trouble, OSError):
            raise PreconditionError(
                f"the output cannot be read back: {self._trouble.strerror}", subject=str(self._output.name)
            ) from self._trouble
        # It reads from a pipe, so what the system refuses to it is the writing.
        if self._processes[-1].returncode > 0 and _REFUSED.search(self._said[-1]):
            raise PreconditionError(
                f"the output cannot be written: {last_words(self._said[-1])}", subject=str(self._output.name)
            )

    def check(self) -> None:
        """Raise CommandError unless every command ended with status 0."""
        if self._trouble is not None:
            raise self._trouble
        # The last command first: the one before it ends with SIGPIPE when its reader is gone.
        for command, process, said in reversed(self._results()):
            if process.returncode != 0:
                raise CommandError(
                    f"{' '.join(command)} ended with status {process.returncode}: {last_words(said)}",
                    subject=Path(command[0]).name,
                )

    def check_decryption(self, subject: str, identity_file: Path) -> None:
        """Raise IntegrityError naming the object, unless everything was decrypted and decompressed.

        CommandError when a tool was killed, by lack of memory for example: that says nothing about the object.
        """
        if self._trouble is not None:
            raise IntegrityError(f"the decrypted content is wrong: {self._trouble}", subject=subject)
        (age, zstd) = self._results()
        for command, process, _said in (zstd, age):
            # Without a reader age ends with SIGPIPE: then zstd has failed, and tells why.
            if process.returncode < 0 and (process is zstd[1] or process.returncode != -signal.SIGPIPE):
                tool = Path(command[0]).name
                raise CommandError(
                    f"{tool} was killed by signal {-process.returncode} before everything was decrypted",
                    subject=subject,
                    untouched="the object; nothing is known about its content",
                    remedy="look into the kernel's log for a lack of memory, and try again",
                )
        if age[1].returncode > 0:
            raise IntegrityError(
                f"cannot be decrypted with the identity in {identity_file}: {last_words(age[2])}",
                subject=subject,
                identity_file=str(identity_file),
                remedy="use the identity of one of the recipients that the manifest lists",
            )
        if zstd[1].returncode != 0 or age[1].returncode != 0:
            raise IntegrityError(f"cannot be decompressed: {last_words(zstd[2] or age[2])}", subject=subject)

    def _results(self) -> list[tuple[Sequence[str], subprocess.Popen[bytes], bytes]]:
        return list(zip(self._commands, self._processes, self._said))

    def _expire(self) -> None:
        self._expired.set()
        self._kill()

    def _kill(self) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()

    def _stop(self) -> None:
        self._watchdog.cancel()
        self._kill()
        for process in self._processes:
            process.wait()
        self._over.set()
        for thread in (self._follower, self._behind):
            if thread is not None and thread.ident is not None:
                thread.join()
        for process in self._processes:
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()
        for errors in self._errors:
            errors.close()


def sign(data: bytes, key_file: Path, namespace: str) -> bytes:
    """A detached SSH signature of `data` by the private key in `key_file`."""
    if not key_file.is_file():
        raise PreconditionError(
            "the signing key is missing", subject=str(key_file), remedy="apply the role backup, which makes it"
        )
    command = [require_tool("ssh-keygen", "openssh-client"), "-q", "-Y", "sign", "-f", str(key_file), "-n", namespace]
    return run(command, input=data, timeout_s=_SIGN_TIMEOUT_S, env={"SSH_ASKPASS_REQUIRE": "never"}).stdout


def verify(
    data: bytes, signature: bytes, *, allowed_signers_file: Path, signer: str, namespace: str, subject: str
) -> str:
    """Check a signature and return the fingerprint of the key that made it.

    Raises IntegrityError naming `subject`: the signature is wrong, or by a key that may not sign as `signer`.
    """
    if not allowed_signers_file.is_file():
        raise PreconditionError("the list of allowed signers is missing", subject=str(allowed_signers_file))
    tool = [require_tool("ssh-keygen", "openssh-client"), "-Y"]
    with _private_file(signature) as file:
        common = ["-n", namespace, "-s", str(file)]
        alone = run([*tool, "check-novalidate", *common], input=data, timeout_s=_SIGN_TIMEOUT_S, check=False)
        if alone.returncode != 0:
            raise IntegrityError(
                f"the signature does not fit the content: {last_words(alone.stderr or alone.stdout)}", subject=subject
            )
        key = alone.text.strip().rpartition(" ")[2]
        trusted = ["-f", str(allowed_signers_file), "-I", signer]
        known = run([*tool, "verify", *trusted, *common], input=data, timeout_s=_SIGN_TIMEOUT_S, check=False)
        if known.returncode != 0:
            raise IntegrityError(
                f"is signed by a foreign key: {key} may not sign as {signer} after {allowed_signers_file}",
                subject=subject,
                signing_key=key,
                remedy="if the host's key was replaced on purpose, add the new one to the list of allowed signers",
            )
    return key


def _widen(pipe: IO[bytes]) -> None:
    """Let a pipe hold a chunk: each side then works on while the other is busy. Where it may not, it stays as it is."""
    with contextlib.suppress(OSError):
        fcntl.fcntl(pipe.fileno(), _F_SETPIPE_SZ, _CHUNK)


class _Follower:
    """Digests a file behind whoever writes or reads it."""

    def __init__(self, descriptor: int, start: int = 0) -> None:
        self._descriptor = descriptor
        self._start = self._offset = start
        self._hash = hashlib.sha256()
        self._buffer = bytearray(_BLOCK)

    @property
    def bytes(self) -> int:
        """What is digested so far."""
        return self._offset - self._start

    def catch_up(self, end: int, most: int | None = None) -> int:
        """Digest up to the offset `end`, or `most` bytes of that; returns how many."""
        if most is not None:
            end = min(end, self._offset + most)
        before = self._offset
        view = memoryview(self._buffer)
        while self._offset < end:
            count = os.preadv(self._descriptor, [view[: end - self._offset]], self._offset)
            if count == 0:  # somebody made the file shorter: the digest tells
                break
            self._hash.update(view[:count])
            self._offset += count
        return self._offset - before

    def digest(self) -> Digest:
        """Of everything so far."""
        return Digest(self.bytes, self._hash.hexdigest())


@contextlib.contextmanager
def _private_file(data: bytes) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix="fluxmaint-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        yield Path(name)
    finally:
        os.unlink(name)
