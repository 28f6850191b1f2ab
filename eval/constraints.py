"""The 25 kinds of instruction of IFEval (arXiv 2311.07911) that a program can check: length, format, case, words.

The rules are those of the published checkers (google-research/instruction_following_eval, as lm-evaluation-harness
0.4.13 runs them), quirks included, so that scores can be compared; every check here takes linear time. Three things
differ, because those need data that is downloaded, or chance:

- Sentences are counted by rules of ours instead of NLTK's trained model.
- The language is py3langid's guess instead of langdetect's, which is drawn at random.
- ``letter_frequency`` of a sign that is no letter ("#") counts that sign; the published checker counts a letter that it
  draws at random.
"""

import json
import re
from collections.abc import Callable
from typing import Any

Arguments = dict[str, Any]
CHOICES = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
ABBREVIATIONS = re.compile(
    r"mrs?|ms|dr|prof|st|[js]r|inc|ltd|co|corp|vs|gen|gov|sen|rep|rev|capt|sgt|col|lt|maj|hon|messrs|mt|jan|feb|mar|apr"
    r"|jun|jul|aug|sept?|oct|nov|dec|e\.g|i\.e|u\.[skn]|d\.c|[ap]\.m|ph\.d|b\.c|a\.d|fig|dept|est",
    re.I,
)
"""Words after which a full stop ends no sentence."""

_END = re.compile(r"(?<![.!?])([.!?]++)([)\]}\"'”’*_]*+)(?=\s|\Z)")
_WORD = re.compile(r"\w+")
_BREAKS = re.compile(r"[\s?!*;@#$%&()\[\]{}<>\"“”«»]|--|\.\.+|[:,](?!\d)")
_CONTRACTION = re.compile(r"(.+?)(n't|'(?:s|m|d|ll|re|ve))", re.I)
_TWO_WORDS = {"cannot": 3, "gimme": 3, "gonna": 3, "gotta": 3, "lemme": 3, "wanna": 3}


def count_words(text: str) -> int:
    """Return the number of runs of letters, digits and underscores."""
    return sum(1 for _ in _WORD.finditer(text))


def count_sentences(text: str) -> int:
    """Return the number of sentences: each ends with . ! or ? before white space, the last one with the text.

    A full stop after an abbreviation or an initial ends none, nor dots or a number's full stop before a small letter.
    The number of a list's item ("1.") counts as a sentence, as it does for NLTK.
    """
    count, last = 0, 0
    for match in _END.finditer(text):
        after = text[match.end() : match.end() + 40].lstrip()
        before = text[max(0, match.start() - 40) : match.start()]
        if set(match[1]) == {"."} and not _ends_sentence(before, match, after):
            continue
        count, last = count + 1, match.end()
    return count + bool(text[last:].strip())


def _ends_sentence(before: str, match: re.Match[str], after: str) -> bool:
    if not after:
        return True
    if len(match[1]) > 1:
        return not after[0].islower()
    word = re.split(r"[\s(\"'“‘\[*_]", before)[-1]
    initial = len(word) == 1 and word.isalpha() and word != "I"
    number = re.fullmatch(r"\d[\d,.-]*", word) and after[0].islower()
    return not (initial or number or ABBREVIATIONS.fullmatch(word))


def count_capital_words(text: str) -> int:
    """Return the number of words in capitals, as NLTK divides words: DON'T and CANNOT are two each, CO-OP is one."""
    count = 0
    for token in _BREAKS.split(text):
        if token == token.lower():
            continue
        parts = [token]
        if contraction := _CONTRACTION.fullmatch(token[:60]):
            parts = list(contraction.groups())
        elif token.casefold() in _TWO_WORDS:
            place = _TWO_WORDS[token.casefold()]
            parts = [token[:place], token[place:]]
        count += sum(part.isupper() for part in parts)
    return count


def language_of(text: str) -> str | None:
    """Return the ISO 639-1 code that py3langid guesses from the first 20,000 characters; None without letters."""
    if not any(sign.isalpha() for sign in text):
        return None
    import py3langid

    return py3langid.classify(text[:20_000])[0]


def _fits(count: int, relation: str, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _in_language(text: str, code: str) -> bool:
    return language_of(text) in (code, None)  # (the published checker lets pass what it cannot tell, too)


def _bullets(text: str) -> int:
    lines, count, place = text.split("\n"), 0, 0
    while place < len(lines):
        line = lines[place].lstrip()
        if line.startswith("*") and line[1:2] != "*":
            if line == "*":
                place += 1  # the published pattern takes the next line as this bullet's text
                count += place < len(lines)
            else:
                count += 1
        count += line.startswith("-")
        place += 1
    return count


def _highlights(text: str) -> int:
    single = [found.strip("*").strip() for found in re.findall(r"\*[^\n*]*\*", text)]
    double = [found[2:-2].strip() for found in re.findall(r"\*\*[^\n*]*\*\*", text)]
    return sum(map(bool, single + double))


def _placeholders(text: str) -> int:
    count = 0
    for line in text.split("\n"):
        start = line.find("[")
        while start >= 0 and (end := line.find("]", start)) >= 0:
            count, start = count + 1, line.find("[", end)
    return count


def _has_title(text: str) -> bool:
    for line in text.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if start >= 0 and end > start + 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def _has_postscript(text: str, marker: str) -> bool:
    patterns = {"P.P.S": r"p\.\s?p\.\s?s", "P.S.": r"p\.\s?s\."}
    return re.search(patterns.get(marker.strip(), re.escape(marker.strip().lower())), text.lower()) is not None


def _is_json(text: str) -> bool:
    body = text.strip()
    for fence in ("```json", "```Json", "```JSON", "```"):
        body = body.removeprefix(fence)
    try:
        json.loads(body.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _divided(text: str, divider: str, count: int, different: bool = False) -> bool:
    parts = [part.strip() for part in re.split(divider, text)]
    if not all(parts[1:-1]):
        return False
    filled = [part for part in parts if part]
    return len(filled) == count and not (different and len(set(filled)) < count)


def _nth_paragraph_starts(text: str, number: int, nth: int, word: str) -> bool:
    paragraphs = text.split("\n\n")
    count = sum(bool(paragraph.strip()) for paragraph in paragraphs)
    if nth > count or not paragraphs[nth - 1].strip():
        return False
    first = paragraphs[nth - 1].split(maxsplit=1)[0].lstrip("'").lstrip('"')
    return count == number and re.split(r"[.,?!'\"]", first, maxsplit=1)[0].lower() == word.lower()


def _count(text: str, wanted: str) -> int:
    return sum(1 for _ in re.finditer(re.escape(wanted.strip()), text, re.I))


def _holds_word(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text, re.I) is not None


CHECKS: dict[str, tuple[tuple[str, ...], Callable[[str, Arguments], bool]]] = {
    "keywords:existence": (("keywords",), lambda t, a: all(_count(t, word) for word in a["keywords"])),
    "keywords:frequency": (
        ("keyword", "relation", "frequency"),
        lambda t, a: _fits(_count(t, a["keyword"]), a["relation"], a["frequency"]),
    ),
    "keywords:forbidden_words": (
        ("forbidden_words",),
        lambda t, a: not any(_holds_word(t, word) for word in a["forbidden_words"]),
    ),
    "keywords:letter_frequency": (
        ("letter", "let_relation", "let_frequency"),
        lambda t, a: _fits(t.lower().count(a["letter"].strip().lower()), a["let_relation"], a["let_frequency"]),
    ),
    "language:response_language": (("language",), lambda t, a: _in_language(t, a["language"])),
    "length_constraints:number_sentences": (
        ("relation", "num_sentences"),
        lambda t, a: _fits(count_sentences(t), a["relation"], a["num_sentences"]),
    ),
    "length_constraints:number_paragraphs": (
        ("num_paragraphs",),
        lambda t, a: _divided(t, r"\*\*\*", a["num_paragraphs"]),
    ),
    "length_constraints:number_words": (
        ("relation", "num_words"),
        lambda t, a: _fits(count_words(t), a["relation"], a["num_words"]),
    ),
    "length_constraints:nth_paragraph_first_word": (
        ("num_paragraphs", "nth_paragraph", "first_word"),
        lambda t, a: _nth_paragraph_starts(t, a["num_paragraphs"], a["nth_paragraph"], a["first_word"]),
    ),
    "detectable_content:number_placeholders": (
        ("num_placeholders",),
        lambda t, a: _placeholders(t) >= a["num_placeholders"],
    ),
    "detectable_content:postscript": (("postscript_marker",), lambda t, a: _has_postscript(t, a["postscript_marker"])),
    "detectable_format:number_bullet_lists": (("num_bullets",), lambda t, a: _bullets(t) == a["num_bullets"]),
    "detectable_format:constrained_response": ((), lambda t, a: any(choice in t for choice in CHOICES)),
    "detectable_format:number_highlighted_sections": (
        ("num_highlights",),
        lambda t, a: _highlights(t) >= a["num_highlights"],
    ),
    "detectable_format:multiple_sections": (
        ("section_spliter", "num_sections"),
        lambda t, a: (
            sum(1 for _ in re.finditer(rf"{re.escape(a['section_spliter'].strip())}\s?\d", t)) >= a["num_sections"]
        ),
    ),
    "detectable_format:json_format": ((), lambda t, a: _is_json(t)),
    "detectable_format:title": ((), lambda t, a: _has_title(t)),
    "combination:two_responses": ((), lambda t, a: _divided(t, r"\*{6}", 2, different=True)),
    "combination:repeat_prompt": (
        ("prompt_to_repeat",),
        lambda t, a: t.strip().lower().startswith(a["prompt_to_repeat"].strip().lower()),
    ),
    "startend:end_checker": (
        ("end_phrase",),
        lambda t, a: t.strip().strip('"').lower().endswith(a["end_phrase"].strip().lower()),
    ),
    "change_case:capital_word_frequency": (
        ("capital_relation", "capital_frequency"),
        lambda t, a: _fits(count_capital_words(t), a["capital_relation"], a["capital_frequency"]),
    ),
    "change_case:english_capital": ((), lambda t, a: t.isupper() and _in_language(t, "en")),
    "change_case:english_lowercase": ((), lambda t, a: t.islower() and _in_language(t, "en")),
    "punctuation:no_comma": ((), lambda t, a: "," not in t),
    "startend:quotation": (
        (),
        lambda t, a: len(t.strip()) > 1 and t.strip().startswith('"') and t.strip().endswith('"'),
    ),
}
"""Kind of instruction -> (the arguments it takes, the check of a text under them)."""


def is_followed(text: str, instruction: str, arguments: Arguments) -> bool:
    """Tell whether a text follows an instruction; a blank text follows none."""
    return bool(text.strip()) and CHECKS[instruction][1](text, arguments)


def loosened(text: str) -> list[str]:
    """Return the eight texts of the loose reading: without its first line, its last, both or neither, and each again
    without asterisks, so that "Sure, here is ..." or bold type breaks nothing."""
    lines = text.split("\n")
    texts = [text, *("\n".join(part).strip() for part in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*texts, *(one.replace("*", "") for one in texts)]
