"""Where an evaluation lies on disk, and how its parts are read back.

``RUN/eval/`` holds ``run.json`` (what made it), ``benchmarks.json`` (their settings), ``items.jsonl`` (the rows asked)
and a folder a leaderboard row::

    settings.json        who answered, and a fingerprint of each benchmark's questions
    samples*.jsonl       one line a completion, as soon as it is finished; a shard has a file of its own
    items.jsonl          the rows of later rounds, which depend on the answers
    likelihoods.jsonl    log-probabilities of right answers
    verdicts.jsonl       one line a completion: the answer read and its score
    results.json         everything the leaderboard needs, computed from the files above
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from data_recipes.errors import UserError, nearest
from data_recipes.files import read_json, read_jsonl, write_atomically
from data_recipes.row import Row
from data_recipes.validation import clause, validated
from eval.benchmarks import BenchmarkSettings, load_benchmark

SAMPLE = {
    "benchmark": str,
    "id": str,
    "sample": int,
    "completion": str,
    "round": int,
    "finish_reason": str,
    "prompt": list,
}
"""What a stored completion cannot do without, and of which kind it is."""
Asked = tuple[str, int, Row]
"""(benchmark's label, round, row)"""


@dataclass(frozen=True)
class RunFolder:
    """The ``eval`` folder of a run."""

    path: Path

    def contestants(self) -> list[Path]:
        """Return the folders of its leaderboard rows, by name.

        Raises:
            UserError: there is none.
        """
        folders = sorted(path.parent for path in self.path.glob("*/settings.json"))
        if not folders:
            raise UserError(f"{self.path}: nothing has been evaluated here; run 'whetstone eval FILE' first")
        return folders

    def contestant(self, name: str) -> Path:
        """Return the folder of the leaderboard row called `name`.

        Raises:
            UserError: there is none of that name.
        """
        by_name = {read_json(path / "settings.json")["name"]: path for path in self.contestants()}
        if name not in by_name:
            raise UserError(f"{self.path}: no row {name!r}{nearest(name, by_name)}")
        return by_name[name]

    def benchmarks(self) -> dict[str, BenchmarkSettings]:
        """Return the settings of every benchmark asked, by label."""
        path = self.path / "benchmarks.json"
        settings = read_json(path)
        if not isinstance(settings, list) or not all(isinstance(one, dict) for one in settings):
            raise UserError(f"{path}: not a list of benchmarks; run 'whetstone eval FILE' again to write it anew")
        opened = [validated(load_benchmark(str(one.get("type"))).Settings, one, str(path)) for one in settings]
        return {one.label: one for one in opened}

    def asked(self, folder: Path) -> list[Asked]:
        """Return every row asked of the contestant in `folder`: the run's, then those of its own later rounds."""
        later = folder / "items.jsonl"
        return read_items(self.path / "items.jsonl") + (read_items(later) if later.exists() else [])


def open_run(path: Path) -> RunFolder:
    """Return the evaluation of a run folder, or of its ``eval`` folder.

    Raises:
        UserError: there is none.
    """
    for folder in (path / "eval", path):
        if (folder / "benchmarks.json").exists():
            return RunFolder(folder)
    problem = "nothing has been evaluated here; run 'whetstone eval FILE' first" if path.is_dir() else "no such folder"
    raise UserError(f"{path}: {problem}")


def distinct_slugs(names: Iterable[str]) -> list[str]:
    """Return the folder names of leaderboard rows.

    Raises:
        UserError: two would be the same, or a name has neither letter nor digit.
    """
    made: dict[str, str] = {}
    for name in names:
        one = slug(name)
        if not one or one in made:
            rival = f"beside {made[one]!r}" if one else "without a letter or digit"
            raise UserError(f"row {name!r}: cannot have a folder of its own {rival}; give it another name")
        made[one] = name
    return list(made)


def slug(name: str) -> str:
    """Return a leaderboard row's name as a folder name."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.").lower()


def write_items(path: Path, asked: list[Asked]) -> None:
    """Write rows with the benchmark and round they are asked in, one a line."""
    lines = (
        '{"benchmark": %s, "round": %d, %s' % (_json(label), number, row.model_dump_json()[1:]) + "\n"  # noqa: UP031
        for label, number, row in asked
    )
    write_atomically(path, "".join(lines))


def read_items(path: Path) -> list[Asked]:
    """Read what `write_items` wrote.

    Raises:
        UserError: the file is missing, or a line is no row.
    """
    asked = []
    for number, line in enumerate(read_jsonl(path), start=1):
        try:
            label, asked_in = line.pop("benchmark"), line.pop("round")
            asked.append((label, asked_in, Row.model_validate(line)))
        except (KeyError, ValidationError) as error:
            raise UserError(
                f"{path}, line {number}: not a row that was asked ({clause(error)[:100]}); run the evaluation again to"
                " write it anew"
            ) from None
    return asked


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """Return the stored completions of the contestant in `folder`, of all shards; of one asked again the last."""
    samples: dict[tuple, dict[str, Any]] = {}
    for path in sorted(folder.glob("samples*.jsonl")):
        # the last line of another shard may be torn, or under way at this moment
        for number, sample in enumerate(read_jsonl(path, torn_line_ok=True), start=1):
            for name, kind in SAMPLE.items():
                if not isinstance(sample.get(name), kind):
                    said = f"no usable {name!r} in it" if name in sample else f"no {name!r} in it"
                    raise UserError(f"{path}, line {number}: {said}; mend or delete that line")
            samples[sample["benchmark"], sample["id"], sample["sample"]] = sample
    return list(samples.values())


def _json(text: str) -> str:
    import json

    return json.dumps(text, ensure_ascii=False)
