# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compression, encryption and signatures, by the tools that a person restoring by hand would use.

Data flows through `zstd` and `age` as streams: memory does not grow with the size of the data, and both
digests, of what goes in and of what comes out, are taken in the same pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from ..core.errors import CommandError, IntegrityError, PreconditionError, TimeoutExceeded
from ..core.fsio import complete_file, private_umask
from ..core.progress import Report, counted
from ..core.run import last_words, require_tool, run
from . import recipients as age_keys

MANIFEST_NAMESPACE = "fluxmaint-manifest"
PROOF_NAMESPACE = "fluxmaint-proof"
LEAST_RECIPIENTS = 2
_CHUNK = 1 << 20
_SIGN_TIMEOUT_S = 60
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
    produce: Callable[[DigestingWriter], None], dest: Path, *, recipients_file: Path, level: int, timeout_s: float
) -> Encrypted:
    """Compress and encrypt what `produce` writes into the new private file `dest`, durably.

    The file has its name only once it is complete; after any failure there is none.
    """
    zstd = [require_tool("zstd"), "-q", "-c", f"-{level}", f"-T{min(os.cpu_count() or 1, _MOST_THREADS)}"]
    age = [require_tool("age"), "-e", "-R", str(recipients_file)]
    with private_umask(), complete_file(dest) as output:
        stored = DigestingWriter(output)
        with Pipeline([zstd, age], timeout_s) as pipeline:
            plain = DigestingWriter(pipeline.input)
            pipeline.drain_into(stored)
            with contextlib.suppress(BrokenPipeError):  # then the exit status tells why
                produce(plain)
            pipeline.finish()
        pipeline.check()
    return Encrypted(plain.digest(), stored.digest())


def encrypt_file(
    source: IO[bytes],
    dest: Path,
    *,
    recipients_file: Path,
    level: int,
    timeout_s: float,
    progress: Report | None = None,
    size: int | None = None,
) -> Encrypted:
    """Compress and encrypt an open file from its present position, telling how far of `size` it is; see `encrypt`."""

    def produce(writer: DigestingWriter) -> None:
        for chunk in counted(iter(lambda: source.read(_CHUNK), b""), progress, size):
            writer.write(chunk)

    return encrypt(produce, dest, recipients_file=recipients_file, level=level, timeout_s=timeout_s)


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
    """
    if not identity_file.is_file():
        raise PreconditionError("the identity file is missing", subject=str(identity_file), object=subject)
    age = [require_tool("age"), "-d", "-i", str(identity_file)]
    zstd = [require_tool("zstd"), "-q", "-d", "-c"]
    with private_umask(), complete_file(dest) as output:
        written = DigestingWriter(output)
        received = hashlib.sha256()
        size = 0
        with Pipeline([age, zstd], timeout_s) as pipeline:
            pipeline.drain_into(written, limit=plain.bytes)
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
        if written.digest() != plain:
            raise IntegrityError(
                "the decrypted content is not what the manifest describes",
                subject=subject,
                expected=plain.sha256,
                received=written.digest().sha256,
            )


class Pipeline:
    """Two commands in a row, fed by this process and drained by a thread of it.

    Leaving the context kills whatever still runs. After `timeout_s` seconds both are killed, and the next
    call raises TimeoutExceeded.
    """

    def __init__(self, commands: Sequence[Sequence[str]], timeout_s: float) -> None:
        self._commands = commands
        self._timeout_s = timeout_s
        self._processes: list[subprocess.Popen[bytes]] = []
        self._errors: list[IO[bytes]] = []
        self._said: list[bytes] = []
        self._expired = threading.Event()
        self._drainer: threading.Thread | None = None
        self._trouble: BaseException | None = None
        self._watchdog = threading.Timer(max(timeout_s, 0.01), self._expire)
        self._watchdog.daemon = True

    def __enter__(self) -> Pipeline:
        try:
            previous: IO[bytes] | int = subprocess.PIPE
            for command in self._commands:
                errors = tempfile.TemporaryFile()
                self._errors.append(errors)
                process = subprocess.Popen(
                    list(command),
                    stdin=previous,
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env={**os.environ, "LC_ALL": "C.UTF-8"},
                    start_new_session=True,  # without a terminal nobody can be asked for a passphrase
                )
                if isinstance(previous, int):
                    self.input = cast("IO[bytes]", process.stdin)
                else:
                    previous.close()  # so that the first command gets SIGPIPE when the second one dies
                self._processes.append(process)
                previous = self._output = cast("IO[bytes]", process.stdout)
        except BaseException:
            self._stop()
            raise
        self._watchdog.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def drain_into(self, writer: DigestingWriter, limit: int | None = None) -> None:
        """Write everything that comes out into `writer`; more than `limit` bytes is an error."""
        def drain() -> None:
            try:
                while chunk := self._output.read(_CHUNK):
                    writer.write(chunk)
                    if limit is not None and writer.digest().bytes > limit:
                        raise IntegrityError(f"more than {limit} bytes come out")
            except BaseException as error:  # noqa: BLE001 - handed to the caller
                self._trouble = error
                self._kill()

        self._drainer = threading.Thread(target=drain, daemon=True)
        self._drainer.start()

    def finish(self) -> None:
        """Close the input and wait until everything has come out."""
        with contextlib.suppress(BrokenPipeError):
            self.input.close()
        if self._drainer is not None:
            self._drainer.join()
        for process in self._processes:
            process.wait()
        self._watchdog.cancel()
        for errors in self._errors:
            errors.seek(0)
            self._said.append(errors.read())
        if self._expired.is_set():
            names = " | ".join(Path(command[0]).name for command in self._commands)
            raise TimeoutExceeded(f"{names} did not finish within {self._timeout_s:g} s", subject=names)
        if isinstance(self._trouble, OSError):
            raise PreconditionError(f"the output cannot be written: {self._trouble.strerror}") from self._trouble

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
        """Raise IntegrityError naming the object, unless everything was decrypted and decompressed."""
        if self._trouble is not None:
            raise IntegrityError(f"the decrypted content is wrong: {self._trouble}", subject=subject)
        (age, zstd) = self._results()
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
        if self._drainer is not None:
            self._drainer.join()
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


@contextlib.contextmanager
def _private_file(data: bytes) -> Iterator[Path]:
    descriptor, name = tempfile.mkstemp(prefix="fluxmaint-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
        yield Path(name)
    finally:
        os.unlink(name)
