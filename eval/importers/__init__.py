"""Other programs' saved outputs, read into rows and completions that the harness scores like its own."""

import gzip
import io
import json
import zipfile
import zlib
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError
from data_recipes.validation import clause


def read_entries(path: Path) -> list[Any]:
    """Return what a file lists: the members of a JSON list, or the lines of JSON Lines; maybe gzipped, or zipped.

    The content decides which it is, not the name. Of a zip archive with several JSON files all entries are returned.

    Raises:
        UserError: the file is missing, damaged or lists nothing; a line that is not JSON is named.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); give the path of a file") from None
    entries = [entry for name, content in _contents(path, raw) for entry in _listed(name, content)]
    if not entries:
        raise UserError(f"{path}: empty; give a file with outputs")
    return entries


def _contents(path: Path, raw: bytes) -> list[tuple[str, bytes]]:
    try:
        if raw[:2] == b"\x1f\x8b":
            return [(str(path), gzip.decompress(raw))]
        if raw[:2] != b"PK" and path.suffix != ".zip":
            return [(str(path), raw)]
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = [
                name
                for name in archive.namelist()
                if name.endswith((".json", ".jsonl")) and not name.startswith("__MACOSX/")
            ]
            found = [(f"{path}/{name}", archive.read(name)) for name in names]
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: a damaged archive ({clause(error)[:120]}); fetch the file again") from None
    if not found:
        raise UserError(f"{path}: no .json or .jsonl file in this archive; give one that holds outputs")
    return found


def _listed(name: str, content: bytes) -> list[Any]:
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name}, line {line}: not UTF-8 text; convert the file to UTF-8") from None
    if text.lstrip()[:1] == "[":
        return _parsed(text, name, 1)
    # not splitlines(): a model may write U+2028 and other separators, which JSON leaves as they are
    lines = enumerate(text.split("\n"), start=1)
    return [_parsed(line, name, number) for number, line in lines if line.strip()]


def _parsed(text: str, name: str, line: int) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{name}, line {line}: nested too deeply; mend that line") from None
    except ValueError as error:
        line += getattr(error, "lineno", 1) - 1
        raise UserError(f"{name}, line {line}: not valid JSON ({clause(error)[:120]}); mend that line") from None
