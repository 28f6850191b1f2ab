"""Pairs to label, as Label Studio reads them (labelstud.io/guide/task_format), and labels, as it exports them.

A task shows the prompt and the two answers side by side, and asks for the left, the right or neither (a Choices
control: Label Studio's own Pairwise control knows no tie). Which answer stands left is decided by a hash of the
pair's id, so it tells nothing, and it is the same in every export.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError, nearest
from data_recipes.files import fingerprint, read_json
from pipelines.routing.pairs import Label, Pair

CONTROL = "preference"
CONFIG = """<View>
  <Style>.answers { display: flex; gap: 1em; } .answers > * { flex: 1; }</Style>
  <Header value="Which answer is better?"/>
  <Text name="prompt" value="$prompt"/>
  <View className="answers">
    <View><Header value="Left" size="5"/><Text name="left" value="$left"/></View>
    <View><Header value="Right" size="5"/><Text name="right" value="$right"/></View>
  </View>
  <Choices name="preference" toName="prompt" choice="single-radio" showInline="true" required="true">
    <Choice value="Left is better" alias="left" hotkey="1"/>
    <Choice value="Right is better" alias="right" hotkey="2"/>
    <Choice value="Neither" alias="tie" hotkey="3"/>
  </Choices>
</View>
"""
"""The project's labelling configuration."""
CHOICES = ("left", "right", "tie")
AGAIN = "export the project again, as JSON"


def b_stands_left(pair_id: str) -> bool:
    """Tell whether answer b is shown on the left: for half of all ids."""
    return bool(int(fingerprint(["left", pair_id]), 16) & 1)


def shown(pair: Pair) -> dict[str, str]:
    """Return a task's data: the pair's id, the prompt, the left answer and the right one."""
    left, right = (pair.b, pair.a) if b_stands_left(pair.id) else (pair.a, pair.b)
    return {"pair": pair.id, "prompt": pair.prompt, "left": left, "right": right}


def tasks(pairs: Iterable[Pair]) -> list[dict[str, Any]]:
    """Return the tasks to import into a project, ordered by a hash so that the most gainful are not seen first."""
    return [{"data": shown(pair)} for pair in sorted(pairs, key=lambda one: fingerprint(["order", one.id]))]


@dataclass
class Labels:
    """What people said, of one or more exports."""

    by_pair: dict[str, Label] = field(default_factory=dict)
    tasks: int = 0
    unlabelled: int = 0
    """Tasks without an annotation, or whose annotations were all skipped."""
    conflicting: int = 0
    """Tasks on which annotators differed."""
    undecided: int = 0
    """Of these, those that no choice won: ties."""


def read_exports(paths: Sequence[Path], pairs: Sequence[Pair]) -> Labels:
    """Read Label Studio's JSON exports of pairs; annotators' majority decides, and where there is none it is a tie.

    Raises:
        UserError: a file is no such export, or a task (named in the message) is of no known pair, shows other texts,
            comes twice or holds no choice that can be read.
    """
    known = {pair.id: pair for pair in pairs}
    labels = Labels()
    places: dict[str, str] = {}
    for path in paths:
        found = read_json(path)
        if not isinstance(found, list):
            raise UserError(f"{path}: not a list of tasks; {AGAIN}")
        for number, task in enumerate(found, start=1):
            where = f"{path}, task {number}"
            pair = _pair_of(task, known, where)
            if pair.id in places:
                raise UserError(f"{where}: the pair {pair.id!r:.80} is that of {places[pair.id]}, too; leave out one")
            places[pair.id] = where
            _count(labels, pair, _votes(task, where))
    return labels


def _pair_of(task: Any, known: dict[str, Pair], where: str) -> Pair:
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict) or not isinstance(task.get("annotations"), list):
        raise UserError(f"{where}: no data and annotations (exported as JSON-MIN?); {AGAIN}")
    name = data.get("pair")
    if not isinstance(name, str) or name not in known:
        guess = nearest(name, known) if isinstance(name, str) else ""
        raise UserError(f"{where}: no pair {name!r:.80} in the file of pairs{guess}; name the file it was chosen from")
    expected = shown(known[name])
    for column, text in expected.items():
        if data.get(column) != text:
            raise UserError(
                f"{where}: its text {column!r} is not that of the pair {name!r:.80}; name the file it was chosen from"
            )
    return known[name]


def _votes(task: dict[str, Any], where: str) -> list[str]:
    votes = []
    for annotation in task["annotations"]:
        if not isinstance(annotation, dict) or not isinstance(annotation.get("result"), list):
            raise UserError(f"{where}: an annotation without a result; {AGAIN}")
        if annotation.get("was_cancelled"):
            continue
        choices = [choice for one in annotation["result"] for choice in _choices(one)]
        if not choices:  # submitted empty
            continue
        if len(choices) > 1 or choices[0] not in CHOICES:
            raise UserError(f"{where}: the choice {choices!r:.80} is not one of {', '.join(CHOICES)}; use config.xml")
        votes.append(choices[0])
    return votes


def _choices(result: Any) -> list[Any]:
    if not isinstance(result, dict) or result.get("from_name") != CONTROL:
        return []
    value = result.get("value")
    found = value.get("choices") if isinstance(value, dict) else None
    return found if isinstance(found, list) else [found]


def _count(labels: Labels, pair: Pair, votes: list[str]) -> None:
    labels.tasks += 1
    if not votes:
        labels.unlabelled += 1
        return
    ranked = Counter(votes).most_common()
    labels.conflicting += len(ranked) > 1
    winner = ranked[0][0]
    if len(ranked) > 1 and ranked[0][1] == ranked[1][1]:
        labels.undecided += 1
        winner = "tie"
    sides: dict[str, Label] = {"left": "a", "right": "b", "tie": "tie"}
    if b_stands_left(pair.id):
        sides |= {"left": "b", "right": "a"}
    labels.by_pair[pair.id] = sides[winner]
