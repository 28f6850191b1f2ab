"""Reading and writing that survives kill -9: whole files are renamed into place, logs lose at most a torn last line."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write `content` to a temporary neighbour of `path` and rename it into place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def folder_written_atomically(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes `path` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # (what a kill leaves, the next try removes)
        raise
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    write_atomically(path, json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}); delete it and run the same command again") from None


def read_jsonl(path: Path, torn_line_ok: bool = False) -> list[dict[str, Any]]:
    """Read a JSON Lines file of objects.

    Args:
        torn_line_ok: leave out a last line without its end, which a kill tore or another process is writing.

    Raises:
        UserError: the file is missing, or a line (named in the message) is not a JSON object.
    """
    try:
        # not splitlines(): a model may write U+2028 and other separators, which JSON leaves as they are
        content = path.read_bytes()
        if torn_line_ok:
            content = content[: content.rfind(b"\n") + 1]
        lines = content.removesuffix(b"\n").split(b"\n")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    rows = []
    for number, line in enumerate(lines if lines != [b""] else [], start=1):
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: not a JSON object (a truncated line?); mend or delete that line")
        rows.append(row)
    return rows


class JsonlLog:
    """An append-only JSON Lines file whose finished lines survive kill -9.

    Opening it drops a last line that a kill tore in two; `rows` holds what was already there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                write_atomically(path, whole)
        self.rows = read_jsonl(path) if path.exists() else []
        self._file = open(path, "a", buffering=1, encoding="utf-8")  # noqa: SIM115 - kept open between lines

    def append(self, row: dict[str, Any]) -> None:
        """Add one line; it is in the operating system's hands when this returns."""
        self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self._file.flush()
        self.rows.append(row)

    def close(self) -> None:
        """Close the file; `rows` stays readable."""
        self._file.close()


def keep_lines(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Keep only the wanted lines of a JSON Lines log, which may be missing or end in a torn line."""
    if not path.exists():
        return
    log = JsonlLog(path)
    log.close()
    kept = [row for row in log.rows if wanted(row)]
    if len(kept) < len(log.rows):
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))


def sha256(*paths: Path) -> str:
    """Return the hex SHA-256 of the bytes of `paths`, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def fingerprint(value: Any) -> str:
    """Return 16 hex digits that change when the JSON form of `value` does."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
