"""PubMedQA's labelled questions without the 500 of its test, or those alone: the two files its authors publish."""

from collections.abc import Iterator
from typing import Any, Literal

from data_recipes.errors import UserError
from data_recipes.files import sha256
from data_recipes.sources import Place, SourceSettings, files


class Settings(SourceSettings):
    """``questions`` and ``test_ids`` are paths or addresses of ori_pqal.json and test_ground_truth.json."""

    questions: str
    test_ids: str
    part: Literal["train", "test"]


def records(settings: Settings, place: Place) -> Iterator[dict[str, Any]]:
    """Yield the columns as published, with the PubMed id as ``key``."""
    questions = {record.pop("key").rpartition(":")[2]: record for record in _read(settings.questions, place)}
    test = set(next(_read(settings.test_ids, place), {})) - {"key"}
    if not test or not test <= set(questions):
        raise UserError(
            f"{settings.questions}: not PubMedQA's labelled questions with their test ids; give both files as published"
        )
    for key, record in questions.items():
        if (key in test) == (settings.part == "test"):
            yield {**record, "key": key}


def revision(settings: Settings, place: Place) -> str:
    """Return the hash of both files."""
    return f"pubmedqa sha256:{sha256(place.resolve(settings.questions), place.resolve(settings.test_ids))}"


def _read(path: str, place: Place) -> Iterator[dict[str, Any]]:
    return files.records(files.Settings(type="files", path=path), place)
