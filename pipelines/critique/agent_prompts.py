"""What the agents of MultiCritique are asked, in our own words: the paper's prompts were not recovered."""

from collections.abc import Sequence

from pipelines.critique.units import PENALTIES, Information, Judgement, Unit

INFORM = """Question: {question}

Before an answer to this question is judged, write down in JSON:
- task: what the question asks for, in one sentence;
- criteria: what a good answer has to fulfil, each criterion with its aspects;
- reference: a good answer of your own."""

CRITICISE = """Task: {task}
Criteria: {criteria}
A reference answer: {reference}

Question: {question}

The response, its sentences numbered:
{numbered}

Read the response sentence by sentence, then look at what its sentences say together. Write down in JSON every flaw as \
a unit: the first and the last sentence it is in, what is wrong, the criterion it breaks, how severe it is, and how to \
mend it. No flaw, no units. Then say whether the final answer is correct or incorrect."""

CATEGORIES = {
    "valid_precise": "true, and says exactly what is wrong and where",
    "valid_vague": "true, but too general to act on",
    "valid_minor_as_major": "true, but far less severe than it says",
    "wrong_location": "there is such a flaw, but elsewhere",
    "wrong_reason": "something is wrong there, but not for this reason",
    "harmful_suggestion": "following the suggestion would make the response worse",
    "hallucinated_or_duplicate": "there is no such flaw, or another unit says the same",
}

JUDGE = """Task: {task}
Criteria: {criteria}
A reference answer: {reference}

Question: {question}

The response, its sentences numbered:
{numbered}

What other critics found:
{others}

Judge this one finding:
{unit}

Give in JSON a reason, then the category that fits:
{categories}"""

AGGREGATE = """Task: {task}
Criteria: {criteria}
A reference answer: {reference}

Question: {question}

The response, its sentences numbered:
{numbered}

What was found and confirmed:
{kept}

What was found and refuted, with the reason:
{flagged}

Write one final critique in JSON: the confirmed flaws, each once, and refuted ones only where they can be corrected. \
Then say whether the final answer is correct or incorrect."""


def numbered(response: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return the response with a number before each sentence."""
    return "\n".join(f"[{number}] {response[start:end]}" for number, (start, end) in enumerate(spans, start=1))


def told(information: Information) -> dict[str, str]:
    """Return the parts of a prompt that come from a query's information."""
    criteria = "; ".join(f"{one.name} ({', '.join(one.aspects)})" for one in information.criteria)
    return {"task": information.task, "criteria": criteria, "reference": information.reference}


def shown(unit: Unit) -> str:
    """Return a unit as one line."""
    place = f"sentence {unit.first_sentence}"
    if unit.last_sentence != unit.first_sentence:
        place = f"sentences {unit.first_sentence} to {unit.last_sentence}"
    return f"- {place}, {unit.severity}, {unit.criterion}: {unit.flaw} Suggestion: {unit.suggestion}"


def listed(units: Sequence[Unit]) -> str:
    """Return units, a line each."""
    return "\n".join(map(shown, units)) or "nothing"


def refuted(units: Sequence[tuple[Unit, Judgement]]) -> str:
    """Return units with what the meta-critic says against them."""
    return "\n".join(f"{shown(unit)} ({judged.category}: {judged.reason})" for unit, judged in units) or "nothing"


def categories() -> str:
    """Return the categories with what they mean, a line each."""
    return "\n".join(f"- {name}: {CATEGORIES[name]}" for name in PENALTIES)


def written_out(units: Sequence[Unit], verdict: str, response: str, spans: Sequence[tuple[int, int]]) -> str:
    """Return a critique as text: what is wrong where, how to mend it, and the verdict line."""
    lines = []
    for unit in units:
        place = unit.place(spans)
        quoted = f'"{response[place[0] : place[1]]}": ' if place else ""
        lines.append(f"{quoted}{unit.flaw} {unit.suggestion}")
    return "\n".join([*(lines or ["No flaw was found."]), f"Judgment: {verdict}"])
