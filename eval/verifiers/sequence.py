"""An ordered list of words or numbers, however a person writes it: commas, brackets, bullets or one a line."""

import re

from data_recipes.row import Row

_ITEM_EDGE = " \t\"'`*[](){}.;“”‘’"


def _items(text: str) -> list[str]:
    body = re.sub(r"^[ \t]*(?:\d+[.)]|[-*•])[ \t]+", ",", text, flags=re.M)
    body = re.sub(r",\s*and\s+(?=\w)(?!\w+\s*,)|(?<=\w)\s+and\s+(?=\w)", ", ", body)  # a conjunction, not an item
    parts = re.split(r"[,\n;→]|->", body)
    return [item for item in (part.strip().strip(_ITEM_EDGE) for part in parts) if item]


def _plain(item: str) -> str:
    try:
        return f"{float(item):g}"
    except ValueError:
        return item.casefold()


def read(completion: str, row: Row) -> str | None:
    """Return the items, separated by commas, of the last bracketed list, else of the last list that is announced.

    A list is announced by a colon or by "is" or "are"; a completion that is nothing but a list needs neither. Prose,
    with more than three words an item, is unparsed. "and" joins two items, or is one where commas stand around it.
    """
    text = completion.strip()
    brackets = re.findall(r"\[([^\[\]]*)\]", text)
    if brackets:
        return ", ".join(_items(brackets[-1]))
    blocks = [block for block in re.split(r":\s|\b(?:is|are)\b\s|\n\s*\n", text) if _items(block)]
    for block in reversed(blocks):
        items = _items(block.split("\n")[0] if "," in block.split("\n")[0] else block)
        if items and (len(items) > 1 or len(blocks) == 1) and all(len(item.split()) <= 3 for item in items):
            return ", ".join(items)
    return None


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the items are the same in the same order (letter case aside), else 0.0."""
    return float([_plain(i) for i in _items(answer)] == [_plain(i) for i in _items(row.answer or "")])


def fault(answer: str, row: Row) -> str:
    """Name the first place where the answer goes wrong."""
    given, right = _items(answer), _items(row.answer or "")
    for place, (mine, wanted) in enumerate(zip(given, right, strict=False), start=1):
        if _plain(mine) != _plain(wanted):
            return f"Item {place} is {mine} but must be {wanted}"
    return f"It has {len(given)} item{'s' * (len(given) != 1)} instead of {len(right)}"
