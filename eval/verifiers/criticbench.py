"""CriticBench's three tasks: a verdict on a response, or an answer to one of its 15 data sets' questions.

What is read follows the repository's parser.py, what is right its grader.py and code_eval.py; ``compat`` keeps the
quirks that `read` mends, each named where it is. ``row.meta`` says what was asked: ``stage`` (generation, critique or
correction), ``source`` (GSM8K, ...), ``answer_format`` (that of the prompt), ``answers`` (all that are right), and
``tests`` of a program (`eval.verifiers.code`).
"""

import json
import re
from math import isclose
from string import punctuation

from data_recipes.row import Row
from eval.verifiers import code, verdict

LETTER_SOURCES = ("CSQA", "Date", "Penguins", "Colored Object")
CODE_SOURCES = ("MBPP", "HumanEval")
LONGEST = 1000
"""Characters of an answer that are looked at; what is longer is no answer."""

_VERDICT_BRACKETS = {"correct": "correct", "right": "correct", "wrong": "wrong", "incorrect": "wrong"}
_NUMBER = re.compile(r"-?\d*\.?\d+")
_FRACTION = re.compile(r"\d{1,30}/\d{1,30}")
_IN_ROUND = re.compile(r"\((.)\)")
_LOOSE_LETTER = re.compile(r"\b(?:option: |answer: )?\(?([A-Za-z])\)?(?=[\s.,:;]|$)")
_AQUA = [
    re.compile(pattern)
    for pattern in (
        r"he answer is (.)\).",
        r"\b(.)\)",
        r"\b([A-G])\b",
        r"\b(?:option: |answer: )?\(?([A-G])\)?(?=[\s.,:;]|$)",
    )
]
_CURRENCY = str.maketrans("", "", "$€£,")


def read(completion: str, row: Row) -> str | None:
    """Return ``correct`` or ``wrong`` of a critique, else the answer (of code: the program) that the completion gives.

    A verdict is the last one in double brackets, else that in the JSON the prompt asks for, else the last word that
    says either, "not correct" being wrong.
    """
    if row.meta.get("stage") == "critique":
        return _verdict(completion, row)
    return _answer(completion, row, published=False)


def _compat(completion: str, row: Row) -> str | None:
    """What the repository reads."""
    if row.meta.get("stage") == "critique":
        return _published_verdict(completion, row)
    return _answer(completion, row, published=True)


EXTRACTIONS = {"compat": _compat}


def bracketed(text: str) -> str | None:
    """Return what stands in the last ``[[...]]`` of a text, on one line."""
    last = None
    for line in text.split("\n"):
        start = line.find("[[")
        while start >= 0 and (end := line.find("]]", start + 2)) >= 0:
            last, start = line[start + 2 : end], line.find("[[", end + 2)
    return last


def json_value(text: str, key: str) -> str | None:
    """Return the value of `key` in the first ``{...}`` of a text that has one, whether or not it is sound JSON.

    Where it is not, that is everything from the key's first place to the next ``}``, as in the repository.
    """
    start = text.find("{")
    end = text.find("}", start) if start >= 0 else -1
    whole = text[start : end + 1] if end >= 0 else ""
    try:
        return str(json.loads(whole if key in whole else text)[key])
    except (ValueError, KeyError, TypeError, RecursionError):
        start = text.find(key)
        end = text.find("}", start) if start >= 0 else -1
        return text[start : end + 1] if end >= 0 else None


def _asked_json(row: Row) -> str | None:
    """Return the JSON key the prompt asks for, or None where it asks for none."""
    _, json_asked, key = row.meta.get("answer_format", "").partition("json:")
    return key.strip() if json_asked else None


def _verdict(completion: str, row: Row) -> str | None:
    key = _asked_json(row)
    for said in (bracketed(completion), json_value(completion, key) if key else None):
        if said and said.strip().lower() in _VERDICT_BRACKETS:
            return _VERDICT_BRACKETS[said.strip().lower()]
    said = verdict.read(completion, row)
    return _VERDICT_BRACKETS[said] if said else None


def _published_verdict(completion: str, row: Row) -> str | None:
    """Brackets count where only one verdict stands in any; else any "wrong" or "incorrect" at all, then "correct"."""
    key = _asked_json(row)
    text = ((json_value(completion, key) if key else None) or completion).lower()
    right, wrong = "[[correct]]" in text, "[[wrong]]" in text
    if right != wrong:
        return "correct" if right else "wrong"
    if any(word in text for word in ("wrong", "incorrect", "not correct")):
        return "wrong"
    return "correct" if "correct" in text else None


def _answer(completion: str, row: Row, published: bool) -> str | None:
    source, key = row.meta.get("source", ""), _asked_json(row)
    if source in CODE_SOURCES:
        return _program(completion, row, published)
    text = completion
    if key:
        text = json_value(completion, key) or completion
    elif row.meta.get("answer_format") == "[[]]":
        text = bracketed(completion) or completion
    if source == "Repeat Copy":
        # the repository compares the whole completion, so that no correction in brackets is ever right
        return (completion if published else text).strip()[:LONGEST] or None
    reader = {
        # in brackets the repository, too, looks for the last number unless a box stands there: 7/6 becomes 6
        "MATH": _latex if published or text is completion else _latex_alone,
        "AQuA": _aqua,
        "TabMWP": _published_tabmwp if published else _number_or_text,
        "StrategyQA": _published_yes_or_no if published else _yes_or_no,
        "AmbigNQ": _published_ambig if published else _phrase,
        "HotpotQA": _phrase,
        **dict.fromkeys(LETTER_SOURCES, _letter),
    }.get(source, _number)
    return reader(text)[:LONGEST] or None


def _program(completion: str, row: Row, published: bool) -> str | None:
    """Return the program a completion makes, a function's beginning put before a body that came alone.

    The repository takes the whole text, markers aside, and where JSON was asked for the JSON itself.
    """
    key = _asked_json(row)
    if published:
        marks = ["[BEGIN]", "[DONE]"]
        if row.meta.get("source") == "HumanEval":
            marks = [*marks, "```python", "```"] if row.meta.get("stage") == "correction" else []
        program = completion
        for mark in marks:
            program = program.replace(mark, "")
        alone = "def" not in completion
    else:
        program = (json_value(completion, key) if key else None) or completion
        program = program.split("[BEGIN]", 1)[-1].split("[DONE]", 1)[0]
        fenced = program.split("```")
        program = fenced[1].removeprefix("python") if len(fenced) > 2 else fenced[0]
        names = re.findall(r"^def (\w{1,99})", row.meta.get("question", ""), re.M)
        alone = bool(names) and f"def {names[-1]}" not in program
    if not program.strip():
        return None
    return row.meta.get("question", "") + program if alone and row.meta.get("source") == "HumanEval" else program


def _announced(text: str, words: str = "he answer is ") -> str:
    return text.rsplit(words, 1)[-1]


def _number(text: str) -> str:
    found = _NUMBER.findall(_announced(text).translate(_CURRENCY))
    return found[-1] if found else ""


def _number_or_text(text: str) -> str:
    """TabMWP's answers are numbers, fractions, options in brackets or words."""
    said, after, fraction = _parts_of_tabmwp(text)
    numbers = _NUMBER.findall(after)
    return numbers[-1] if numbers else fraction or said.strip(" .\n")


def _published_tabmwp(text: str) -> str:
    """What follows a fraction takes its place even where that is nothing but a full stop."""
    said, after, fraction = _parts_of_tabmwp(text)
    numbers = _NUMBER.findall(after)
    return numbers[-1] if numbers else after.strip(".") or after


def _parts_of_tabmwp(text: str) -> tuple[str, str, str]:
    """Return what is announced (only the last option, where there is one), what of it follows the last fraction, and
    that fraction."""
    said = _announced(text)
    options = _IN_ROUND.findall(said)
    said = options[-1] if options else said.translate(_CURRENCY).replace(" /", "/").replace("/ ", "/")
    fractions = _FRACTION.findall(said)
    return said, said.rsplit(fractions[-1], 1)[-1] if fractions else said, fractions[-1] if fractions else ""


def _letter(text: str) -> str:
    said = _announced(text)
    found = _IN_ROUND.findall(said)
    if not found and said == text:
        found = _LOOSE_LETTER.findall(text)
    return found[-1] if found else ""


def _aqua(text: str) -> str:
    return next((found[-1] for pattern in _AQUA if (found := pattern.findall(text))), "")


def _phrase(text: str) -> str:
    return _announced(text, "he answer is").strip(" \n:").rstrip(".")


def _published_ambig(text: str) -> str:
    """The words are looked for without their colon, but the text is split at the words with it."""
    return (_announced(text, "he answer is:") if "he answer is" in text else text).strip(".")


def _yes_or_no(text: str) -> str:
    said = [word.lower() for word in re.findall(r"\b(yes|no)\b", _announced(text), re.I)]
    return "" if not said else said[0] if "he answer is " in text else said[-1]


def _published_yes_or_no(text: str) -> str:
    """After "the answer is" a "no" inside any word ("know", "not") counts."""
    said = _announced(text).lower()
    if "he answer is " in text:
        yes, no = "yes" in said, "no" in said
    else:
        yes, no = (re.search(rf"\b{word}\b", said) is not None for word in ("yes", "no"))
    return "" if yes == no else "yes" if yes else "no"


def _latex_alone(text: str) -> str:
    """A text that is nothing but an answer."""
    return _latex(text) if "boxed" in text or "he answer is" in text else _plain_latex(text[:LONGEST])


def _latex(text: str) -> str:
    """What is in the last box, else what is announced, else the last number; as MATH's answers are written."""
    if "boxed" in text:
        said = _inside_braces(text.rsplit("boxed", 1)[-1][:LONGEST])
    elif "he answer is" in text:
        said = _announced(text, "he answer is").strip()
    else:
        numbers = _NUMBER.findall(text.translate(_CURRENCY))
        said = numbers[-1] if numbers else ""
    said = said.split("\n")[0][:LONGEST].removeprefix(":").removesuffix(".").removesuffix("/")
    return _plain_latex(said)


def _inside_braces(text: str) -> str:
    if not text.startswith("{"):
        return text.split("$")[0].strip()
    depth = 0
    for place, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[1:place]
    return text[1:]


_DROPPED = ("\\!", "\\ ", "\\left", "\\right", "^{\\circ}", "^\\circ", "\\$", "$", "x\\in", "\\%", "%", "\\cdot", "and")


def _plain_latex(text: str) -> str:
    """Write an expression as the repository's ``strip_string`` does, so that two spellings of it compare equal."""
    text = text.strip().rstrip(".").replace("\\\\", "\\").replace("tfrac", "frac").replace("dfrac", "frac")
    without_unit = re.sub(r"\\text\{[^{}]*\}$", "", text).strip()
    text = without_unit or text
    for part in (*_DROPPED, "\\text", "\\mathbf"):
        text = text.replace(part, "")
    text = text.replace(" .", " 0.").replace("{.", "{0.")
    text = re.sub(r"\\mbox\{[^{}]*\}", "", text.replace("infinity", "\\infty"))
    if "j" in text and "i" not in text:
        text = text.replace("j", "i")
    text = re.sub(r"(\d)\.0{1,99}(?!\d)", r"\1", text)
    text = "0" + text if text.startswith(".") else text
    left, equals, right = text.partition("=")
    if equals and "=" not in right and len(left) <= 2:
        text = right
    text = re.sub(r"\\sqrt(\w+)", r"\\sqrt{\1}", text).replace(" ", "")
    text = re.sub(r"\\frac([^{])([^{])", r"\\frac{\1}{\2}", text)
    text = re.sub(r"\\frac([^{])\{", r"\\frac{\1}{", text)
    return re.sub(r"^(-?\d{1,99})/(-?\d{1,99})$", r"\\frac{\1}{\2}", text)


def score(answer: str, row: Row) -> float:
    """Return 1.0 where the verdict is the true one, the program passes its tests, or any right answer is met.

    Answers of HotpotQA and AmbigNQ agree as words (`exact_match`), all others as numbers or text (`math_equal`).
    """
    source, answers = row.meta.get("source", ""), row.meta.get("answers") or [row.answer or ""]
    if row.meta.get("stage") == "critique":
        return float(answer == row.answer)
    if source in CODE_SOURCES:
        return code.score(answer, row)
    if source in ("HotpotQA", "AmbigNQ"):
        return float(any(exact_match(answer, right) for right in answers))
    if source == "MATH":
        answers = [*answers, *map(_plain_latex, answers)]
    if source != "Repeat Copy":
        answer, answers = answer.lower(), [right.lower() for right in answers]
    return float(any(math_equal(answer, right) for right in answers))


def math_equal(given: str, right: str) -> bool:
    """Tell whether two answers agree as the repository's grader.py has it.

    Numbers agree within 1e-4 of their size, and also where one is the other in percent (100 or 1/100 times as much);
    texts where they are the same but for brackets and braces, tuples part by part.
    """
    try:
        ours, theirs = (float(text.replace(",", "")) for text in (given, right))
        return any(isclose(form, ours, rel_tol=1e-4) for form in (theirs / 100, theirs, theirs * 100))
    except ValueError:
        pass
    given, right = given.strip(), right.strip()
    if not given:
        return False
    if _without(given, "{}()") == _without(right, "{}()"):
        return True
    for opening, closing, other in ("[](", "()["):
        if not (given.startswith(opening) and given.endswith(closing)):
            continue
        if not right.startswith(other) and _without(given.strip("[]()"), "{}()") == _without(
            right.strip("[]()"), "{}()"
        ):
            return True
        if right.startswith(opening) and right.endswith(closing):
            parts, wanted = ([part.strip("[]()") for part in text[1:-1].split(",")] for text in (given, right))
            return len(parts) == len(wanted) and all(map(math_equal, parts, wanted))
    return False


def _without(text: str, signs: str) -> str:
    return text.translate(str.maketrans("", "", signs))


def exact_match(given: str, right: str) -> bool:
    """Tell whether two answers are the same words: letter case, punctuation, articles and spacing aside."""
    return _words(given) == _words(right)


def _words(text: str) -> list[str]:
    return re.sub(r"\b(?:a|an|the)\b", " ", _without(text.lower(), punctuation)).split()
