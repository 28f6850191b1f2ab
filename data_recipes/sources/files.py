"""Records from JSON Lines, JSON, CSV or Parquet files (maybe gzipped), one path, several, globs or https addresses.

A record's ``key`` says where it stands: ``file.jsonl:12`` is line 12, ``file.json:12`` the record of that index or
name.
"""

import csv
import glob
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from data_recipes.errors import UserError
from data_recipes.files import sha256
from data_recipes.sources import Place, SourceSettings
from data_recipes.validation import clause

FORMATS = (".jsonl", ".json", ".csv", ".parquet")


class Settings(SourceSettings):
    """Which files, and how records lie in them."""

    path: str | Annotated[list[str], Field(min_length=1)]
    """Relative to the recipe; globs are expanded in sorted order; ``{data}`` is WHETSTONE_DATA, ``{run}`` the run
    folder."""
    records: str | None = None
    """In a JSON file, the key that holds the list of records."""
    explode: str | None = None
    """A column that holds a list of records: each becomes a record, beside the other columns."""


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield the columns of every record, with its ``key``."""
    files = _files(settings, place)
    for path, name in files:
        for key, record in _READERS[_format(path, name)](path, settings):
            record = {**record, "key": f"{name}:{key}"}
            yield from exploded(record, settings.explode, str(path)) if settings.explode else [record]


def revision(settings: Settings, place: Place) -> str:
    """Return the first file's name and the hash of all contents."""
    files = _files(settings, place)
    return f"{files[0][1]} sha256:{sha256(*(path for path, _ in files))}"


def _files(settings: Settings, place: Place) -> list[tuple[Path, str]]:
    """Return every file with the name it goes by: an address's own, not that of its copy in the cache."""
    found: list[tuple[Path, str]] = []
    full: list[str] = []
    for given in [settings.path] if isinstance(settings.path, str) else settings.path:
        path = place.resolve(given)
        if any(sign in given for sign in "*?["):
            matches = sorted(match for match in map(Path, glob.glob(str(path))) if match.is_file())
            if not matches:
                raise UserError(f"{path}: no file matches; mend the path")
            found += [(match, match.name) for match in matches]
            full += [str(match) for match in matches]
        elif path.is_dir():
            pattern = f"{given.rstrip('/') or '.'}/*.jsonl"
            raise UserError(f"{path}: a folder, not a file; give a file of it, or a pattern such as {pattern}")
        elif not path.is_file():
            raise UserError(f"{path}: no such file; mend the path")
        else:
            found.append((path, given.rsplit("/", 1)[-1]))
            full.append(given)
    # data/a/test.jsonl and data/b/test.jsonl are told apart by their folders
    if len({name for _, name in found}) < len(found):
        found = [(path, "/".join(one.split("/")[-2:])) for (path, _), one in zip(found, full, strict=True)]
    return found


def _format(path: Path, name: str) -> str:
    suffix = Path(name.removesuffix(".gz")).suffix
    if suffix not in FORMATS:
        raise UserError(f"{path}: not one of {', '.join(FORMATS)} (or .gz of these); convert it to one of them")
    return suffix


def _unzipped(path: Path) -> bytes:
    raw = path.read_bytes()
    try:
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path}: truncated or damaged gzip ({clause(error)}); fetch the file again") from None


def _text(path: Path) -> str:
    raw = _unzipped(path)
    nul = raw.find(b"\0")
    if nul >= 0:
        raise UserError(f"{path}, line {_line(raw, nul)}: a NUL byte, not text; fetch the file again")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = _line(raw, error.start)
        raise UserError(f"{path}, line {line}: not UTF-8 text; convert the file to UTF-8") from None


def _line(raw: bytes, place: int) -> int:
    return raw.count(b"\n", 0, place) + 1


def _json_lines(path: Path, settings: Settings) -> Iterator[tuple[Any, dict[str, Any]]]:
    with open(path, "rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    # a plain file is read line by line: it may be larger than memory
    lines = io.BytesIO(_unzipped(path)) if zipped else open(path, "rb")  # noqa: SIM115 - closed below
    with lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if b"\0" in line:
                raise UserError(f"{path}, line {number}: a NUL byte, not text; fetch the file again")
            try:
                record = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError:
                raise UserError(f"{path}, line {number}: not UTF-8 text; convert the file to UTF-8") from None
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise UserError(
                    f"{path}, line {number}: not a JSON object (a truncated line?); mend or delete that line"
                )
            yield number, record


def _json(path: Path, settings: Settings) -> Iterator[tuple[Any, dict[str, Any]]]:
    text = _text(path)
    try:
        value = json.loads(text)
    except ValueError as error:
        try:  # JSON Lines under the name .json, as some data sets are published
            for line in text.splitlines()[:2]:
                json.loads(line)
        except (ValueError, RecursionError):
            # (a number of too many digits is a plain ValueError)
            line, why = getattr(error, "lineno", 1), getattr(error, "msg", error)
            raise UserError(f"{path}, line {line}: not valid JSON ({why}); mend that line") from None
        yield from _json_lines(path, settings)
        return
    except RecursionError:
        raise UserError(f"{path}, line 1: nested too deeply; flatten the file") from None
    if settings.records is not None:
        if not isinstance(value, dict) or settings.records not in value:
            raise UserError(f"{path}, line 1: holds no key {settings.records!r}; mend the source's 'records'")
        value = value[settings.records]
    elif isinstance(value, dict) and not all(isinstance(record, dict) for record in value.values()):
        value = [value]  # one object: JSON Lines of one line
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if pairs is None:
        raise UserError(f"{path}, line 1: holds no list of records; set the source's 'records' to the key that does")
    for key, record in pairs:
        if not isinstance(record, dict):
            raise UserError(f"{path}: record {key} is no JSON object; mend it or set the source's 'records'")
        yield key, record


def _csv(path: Path, settings: Settings) -> Iterator[tuple[Any, dict[str, Any]]]:
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    csv.field_size_limit(sys.maxsize)  # whole documents are a cell, too
    start = 1
    try:
        header = next(reader, None)
        if not header or len(set(header)) < len(header):
            raise UserError(f"{path}, line 1: no header of distinct column names; add one")
        start = reader.line_num + 1
        for cells in reader:
            if len(cells) != len(header) and cells:
                raise UserError(
                    f"{path}, line {start}: {len(cells)} cells where the header has {len(header)}; quote the cells"
                    " that hold commas"
                )
            if cells:
                yield start, dict(zip(header, cells, strict=True))
            start = reader.line_num + 1
    except csv.Error as error:
        raise UserError(f"{path}, line {start}: not valid CSV ({error}); mend the quotes of that row") from None


def _parquet(path: Path, settings: Settings) -> Iterator[tuple[Any, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    with open(path, "rb") as probe:
        zipped = probe.read(2) == b"\x1f\x8b"
    source = pa.BufferReader(_unzipped(path)) if zipped else path
    try:
        for batch in pq.ParquetFile(source).iter_batches(batch_size=1024):
            for record in batch.to_pylist():
                yield number, record
                number += 1
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:  # (dates may be beyond Python's)
        reason = clause(error)[:120]
        raise UserError(f"{path}: row {number}: not readable as Parquet ({reason}); fetch the file again") from None


def exploded(record: dict[str, Any], column: str, where: str) -> Iterator[dict[str, Any]]:
    """Yield the records that a column of `record` lists, each beside the other columns.

    Raises:
        UserError: the column holds no list of records.
    """
    inner = record.get(column)
    if not isinstance(inner, list) or not all(isinstance(one, dict) for one in inner):
        raise UserError(
            f"{where}: record {record['key']}: column {column!r} holds no list of records; mend the source's 'explode'"
        )
    outer = {name: value for name, value in record.items() if name != column}
    for number, one in enumerate(inner):
        yield {**outer, **one, "key": f"{record['key']}.{number}"}


_READERS = {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}
