"""The layouts that instruction data comes in, recognised by their columns.

========================  ==========================================================================
messages                  ``messages``: turns with ``role`` and ``content``
ShareGPT                  ``conversations``: turns with ``from`` (human, gpt, system) and ``value``
Alpaca                    ``instruction``, maybe ``input``, and ``output`` or ``response``
prompt and completion     ``prompt`` and ``completion`` (or ``response``): texts or turns
preference                ``chosen`` and ``rejected`` beside one of the above, or two whole conversations
row                       `data_recipes.row.Row` as it stands
========================  ==========================================================================
"""

from typing import Any

ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
}
Turns = list[dict[str, str]]


def is_row(record: dict[str, Any]) -> bool:
    """Tell whether the record is a whole row already."""
    return {"id", "task", "kind", "messages"} <= set(record)


def recognised(record: dict[str, Any]) -> dict[str, Turns]:
    """Return ``messages``, and ``chosen`` and ``rejected`` where the record is a preference.

    A preference's chosen and rejected hold the answers alone; what comes before them is in ``messages``.

    Raises:
        ValueError: the columns are of no layout known, or do not hold what the layout says.
    """
    filled = {name: value for name, value in record.items() if value is not None}
    if "chosen" in filled and "rejected" in filled:
        before = _before(filled)
        chosen, rejected = _answer(filled["chosen"]), _answer(filled["rejected"])
        if not before:  # two whole conversations
            before = chosen[:-1]
            if rejected[:-1] != before:
                raise ValueError("chosen and rejected answer different conversations")
            chosen, rejected = chosen[-1:], rejected[-1:]
        if not any(turn["role"] == "user" for turn in before):
            raise ValueError("chosen and rejected answer no question: there is no user turn before them")
        return {"messages": before, "chosen": chosen, "rejected": rejected}
    answer = filled.get("output", filled.get("response"))
    if "messages" in filled or "conversations" in filled:
        return {"messages": _before(filled)}
    if "instruction" in filled and answer is not None:
        return {"messages": [*_before(filled), _turn("assistant", answer)]}
    if "prompt" in filled and ("completion" in filled or answer is not None):
        return {"messages": [*_before(filled), *_answer(filled.get("completion", answer))]}
    raise ValueError(
        f"the columns {', '.join(sorted(map(str, filled)))} are of no layout known (messages, conversations,"
        " instruction and output, prompt and completion, chosen and rejected)"
    )


def _before(record: dict[str, Any]) -> Turns:
    for column in ("messages", "conversations", "conversation"):
        if column in record:
            return _turns(record[column], column)
    if "instruction" in record:
        extra = str(record.get("input") or "").strip()
        question = str(record["instruction"]).strip() + (f"\n\n{extra}" if extra else "")
        system = str(record.get("system") or "").strip()
        return [*([_turn("system", system)] if system else []), _turn("user", question)]
    if "prompt" in record:
        prompt = record["prompt"]
        return [_turn("user", prompt)] if isinstance(prompt, str) else _turns(prompt, "prompt")
    return []


def _answer(value: Any) -> Turns:
    if isinstance(value, str):
        return [_turn("assistant", value)]
    return _turns([value] if isinstance(value, dict) else value, "the answer")


def _turns(value: Any, column: str) -> Turns:
    if not isinstance(value, list) or not value or not all(isinstance(turn, dict) for turn in value):
        raise ValueError(f"{column}: expected a list of turns")
    turns = []
    for turn in value:
        role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
        if not isinstance(role, str) or role not in ROLES:
            raise ValueError(f"{column}: unknown role {role!r}; rename it to one of {', '.join(sorted(ROLES))}")
        if not isinstance(content, str):
            raise ValueError(f"{column}: a turn of {role} has no text")
        turns.append(_turn(ROLES[role], content))
    return turns


def _turn(role: str, content: Any) -> dict[str, str]:
    if not isinstance(content, str):
        raise ValueError(f"expected text for the {role}'s turn, not {type(content).__name__}")
    return {"role": role, "content": content.strip()}
