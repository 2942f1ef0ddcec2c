# Copyright: FluxHero maintenance contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rows as Parquet, with pyarrow, which is needed for nothing else.

A SQLite column holds values of any type, a Parquet column of one. So the types are those of the values:

- integers alone are `int64`, reals alone `double`, text alone `string`, blobs alone `binary`; all may hold nulls;
- integers and reals together are `double` while each integer is one exactly;
- anything else that is mixed, and what holds nulls alone, is `string`, written as in CSV.

The types that were found stand in the metadata of each field, as `sqlite_types`.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..core.errors import PreconditionError
from .export_csv import Rows, Values, blob_text

_EXACT = 1 << 53
_GROUP_ROWS = 100_000
_GROUP_BYTES = 64 << 20

INTEGER, BIG, REAL, TEXT, BLOB = "integer", "big", "real", "text", "blob"
_NAMES = {int: INTEGER, float: REAL, bytearray: TEXT, bytes: BLOB}


class Kinds:
    """The types that the values of each column have."""

    def __init__(self, columns: int) -> None:
        self._found: list[set[str]] = [set() for _column in range(columns)]

    def add(self, rows: Rows) -> None:
        """Look at rows, at least one."""
        for found, values in zip(self._found, zip(*rows)):
            kinds = set(map(type, values))
            found.update(_NAMES[kind] for kind in kinds if kind in _NAMES)
            if int in kinds and BIG not in found:
                found.update({BIG} if any(isinstance(value, int) and abs(value) > _EXACT for value in values) else ())

    def sqlite_types(self) -> list[list[str]]:
        """For each column the types of its values, nulls not counted."""
        return [sorted(found - {BIG}) for found in self._found]

    def parquet_types(self) -> list[str]:
        """For each column the type that holds all its values."""
        return [_parquet_type(found) for found in self._found]


def _parquet_type(found: set[str]) -> str:
    plain = found - {BIG}
    if plain == {INTEGER}:
        return "int64"
    if plain == {REAL} or (plain == {INTEGER, REAL} and BIG not in found):
        return "double"
    return "binary" if plain == {BLOB} else "string"


def require() -> tuple[Any, Any]:
    """pyarrow, and its part for Parquet. Raises PreconditionError where it is not installed."""
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise PreconditionError(
            f"Parquet needs the Python package pyarrow: {error}",
            subject="pyarrow",
            untouched="everything",
            remedy="install pyarrow for the Python that runs this, or export CSV",
        ) from None
    return pa, parquet


class Parquet:
    """Writes rows to a stream in row groups of bounded size.

    Attributes:
        undecodable: cells so far with text that is not UTF-8; the bytes that are not became U+FFFD.
    """

    def __init__(
        self, stream: io.BufferedIOBase, names: Sequence[str], kinds: Kinds, *, blobs: str, metadata: Mapping[str, str]
    ) -> None:
        self._arrow, parquet = require()
        self._types = kinds.parquet_types()
        self._blobs = blobs
        self.undecodable = 0
        made = {
            "int64": self._arrow.int64(),
            "double": self._arrow.float64(),
            "string": self._arrow.string(),
            "binary": self._arrow.binary(),
        }
        fields = [
            self._arrow.field(name, made[kind], metadata={"sqlite_types": ",".join(found)})
            for name, kind, found in zip(names, self._types, kinds.sqlite_types())
        ]
        self._schema = self._arrow.schema(fields, metadata=dict(metadata))
        self._writer = parquet.ParquetWriter(stream, self._schema, compression="zstd")
        self._waiting: list[Any] = []

    def write(self, rows: Rows) -> None:
        """Add rows, at least one."""
        columns = [
            self._arrow.array(self._values(values, kind), type=field.type)
            for values, kind, field in zip(zip(*rows), self._types, self._schema)
        ]
        self._waiting.append(self._arrow.record_batch(columns, schema=self._schema))
        if (
            sum(batch.num_rows for batch in self._waiting) >= _GROUP_ROWS
            or sum(batch.nbytes for batch in self._waiting) >= _GROUP_BYTES
        ):
            self._flush()

    def close(self) -> None:
        """Write what is left, and the footer."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._waiting:
            table = self._arrow.Table.from_batches(self._waiting, schema=self._schema)
            self._writer.write_table(table, row_group_size=table.num_rows)
            self._waiting = []

    def _values(self, values: Values, kind: str) -> Iterable[Any]:
        if kind == "string":
            return [self._text(value) for value in values]
        if kind == "double":
            return [None if value is None else float(value) for value in values]
        return list(values)

    def _text(self, value: Any) -> str | None:
        if value is None:
            return None
        if isinstance(value, bytearray):
            try:
                return value.decode()
            except UnicodeDecodeError:
                self.undecodable += 1
                return value.decode("utf-8", "replace")
        return blob_text(value, self._blobs).decode() if isinstance(value, bytes) else repr(value)
