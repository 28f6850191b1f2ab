"""Benchmark questions, verbatim and lightly reworded, planted among real training rows: what is found?"""

import random
import re
from collections.abc import Callable, Iterator

from data_recipes.row import Message, Row

SYNONYMS = dict(
    pair.split("=")
    for pair in """
how many=what number of|total=overall|buys=purchases|bought=purchased|find=determine|calculate=compute|each=every
gets=receives|gives=hands|also=as well|following=subsequent|best=finest|which=what|true=correct|large=big|small=little
most=largest part|after=following|return=give back|given=provided|list=sequence|number=count|check=test|has=owns
is=amounts to|are=happen to be|the=this|a=one|what=which thing|of=from|in=inside|to=towards|and=plus
""".strip()
    .replace("\n", "|")
    .split("|")
)
"""The telling words first: the small ones only where nothing better is there."""

GYM = [
    *("basic_arithmetic", "simple_equations", "word_sorting", "family_relationships", "calendar_arithmetic"),
    *(
        "caesar_cipher",
        "number_filtering",
        "fraction_simplification",
        "needle_haystack",
        "products",
        "ab",
        "leg_counting",
    ),
    *("spell_backward", "letter_counting", "prime_factorization", "decimal_arithmetic", "string_manipulation"),
]
"""Tasks of reasoning-gym; not gsm_symbolic, whose templates are GSM8K test questions."""


def upper_or_lower(text: str, rng: random.Random) -> str:
    """Change the case of all letters."""
    return rng.choice([text.upper(), text.lower(), text.title()])


def punctuation(text: str, rng: random.Random) -> str:
    """Drop full stops, commas and question marks, or put others in their place."""
    other = rng.choice(["", "", " -", ";"])
    return re.sub(r"(?<!\d)[.,;:?!](?!\d)", other, text)


def white_space(text: str, rng: random.Random) -> str:
    """Stretch and break the spaces."""
    return re.sub(r" ", lambda _: rng.choice([" ", "  ", "\n", "\t"]), text)


def synonym(text: str, rng: random.Random) -> str:
    """Replace one word or phrase."""
    found = [word for word in SYNONYMS if re.search(rf"\b{word}\b", text, re.I)]
    chosen = found[0] if found else None
    return re.sub(rf"\b{chosen}\b", SYNONYMS[chosen], text, count=1, flags=re.I) if chosen else text + " please"


def swapped(text: str, rng: random.Random) -> str:
    """Swap two neighbouring sentences, or the clauses around a comma."""
    for boundary in (r"(?<=[.?!])\s+", r",\s+"):
        parts = re.split(boundary, text.strip())
        if len(parts) > 1:
            place = rng.randrange(len(parts) - 1)
            parts[place], parts[place + 1] = parts[place + 1], parts[place]
            return (" " if "." in boundary else ", ").join(parts)
    words = text.split()
    return " ".join(words[len(words) // 2 :] + words[: len(words) // 2])


REWORDINGS: dict[str, Callable[[str, random.Random], str]] = {
    "case": upper_or_lower,
    "punctuation": punctuation,
    "white space": white_space,
    "synonym": synonym,
    "swapped clause": swapped,
}


def all_at_once(text: str, rng: random.Random) -> str:
    """Apply every rewording, one after another."""
    for name in ("synonym", "swapped clause", "punctuation", "case", "white space"):
        text = REWORDINGS[name](text, rng)
    return text


def planted(items: list[Row], reword: Callable[[str], str]) -> Iterator[Row]:
    """Yield training rows that ask the items' questions (with their options) in other words around them."""
    frames = ("{}", "Question: {}\nAnswer:", "Please answer this.\n\n{}", "{}\nThink step by step.")
    for number, item in enumerate(items):
        question = item.meta.get("question") or item.question
        asked = reword(question)
        if item.meta.get("options"):
            asked += "\n" + "\n".join(f"({'ABCDEFGHIJ'[i]}) {option}" for i, option in enumerate(item.meta["options"]))
        turns = [
            Message(role="user", content=frames[number % len(frames)].format(asked)),
            Message(role="assistant", content=item.answer or "See above."),
        ]
        yield Row(id=f"planted/{item.id}", task="planted", kind="domain", messages=turns)


def clean_rows(total: int) -> list[Row]:
    """Return real training rows: the sets under WHETSTONE_DATA that may be trained on, topped up from reasoning-gym."""
    from data_recipes.reading import distinct, rows_of
    from data_recipes.recipe import TaskRecipe, load_recipe
    from data_recipes.sources import Place, open_source

    recipe, path = load_recipe("cocktail")
    rows: list[Row] = []
    for task, settings in recipe.tasks.items():
        source = open_source(settings.source, Place(path.parent), task)
        if source.settings.half is None or task.startswith(("med", "tatqa")):  # the other halves repeat test questions
            rows += distinct(rows_of(task, settings, source))
    share = -(-(total - len(rows)) // len(GYM))
    for name in GYM:
        settings = TaskRecipe(
            kind="domain",
            source={"type": "reasoning_gym", "dataset": name, "seed": 7, "size": share},
            prompt="{{ question }}",
        )
        rows += rows_of(name, settings, open_source(settings.source, Place(path.parent), name))
    return rows[:total]
