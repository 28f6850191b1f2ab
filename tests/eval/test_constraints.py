"""Every kind of IFEval's instructions, followed and not, quirks of the published checkers included.

What is expected here is what the published checkers say (lm-evaluation-harness 0.4.13), but for the three differences
that `eval.constraints` names.
"""

import json

import pytest

from data_recipes.errors import UserError
from data_recipes.row import Message, Row
from eval.constraints import (
    CHECKS,
    count_capital_words,
    count_sentences,
    count_words,
    is_followed,
    language_of,
    loosened,
)
from eval.verifiers import fault, load_verifier, verify

FOLLOWED = [
    ("keywords:existence", {"keywords": ["rain", "Sun"]}, "The SUN after raindrops", "The sun"),
    ("keywords:frequency", {"keyword": "war", "relation": "at least", "frequency": 2}, "War and warm", "war"),
    ("keywords:frequency", {"keyword": "war", "relation": "less than", "frequency": 2}, "war", "war in Warsaw"),
    ("keywords:forbidden_words", {"forbidden_words": ["rock"]}, "a rocket", "It is a Rock."),
    ("keywords:letter_frequency", {"letter": "t", "let_relation": "less than", "let_frequency": 2}, "To go", "Totem"),
    ("keywords:letter_frequency", {"letter": "#", "let_relation": "at least", "let_frequency": 2}, "# ##", "# one"),
    ("language:response_language", {"language": "de"}, "Das ist ein kleiner Test.", "This is a small test of it."),
    ("language:response_language", {"language": "hi"}, "नमस्ते, यह एक छोटा उत्तर है।", "This is a short answer."),
    ("language:response_language", {"language": "kn"}, "12345", "This is a short answer."),  # no letters: let pass
    ("length_constraints:number_sentences", {"relation": "at least", "num_sentences": 3}, "One. Two! Three", "A. B"),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "***\none\n***\ntwo", "one\n***\n \n***\ntwo"),
    ("length_constraints:number_words", {"relation": "less than", "num_words": 3}, "It's", "it's so"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Elm"},
        'One.\n\n"Elm, yes',
        "One.\n\nElms stand",
    ),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "one"},
        "One!\n\nTwo",
        "\n\nOne\n\nTwo",  # the blank one is not counted, but it is the first
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[a] and [b]", "[a\n] and [b]"),
    ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye\n\np. s. Wait", "Bye PS"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "P.P.S Wait", "P.S. Wait"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b\n**c**", "* a\n* b\n* c"),
    ("detectable_format:number_bullet_lists", {"num_bullets": 1}, "*\n* a", "*"),
    ("detectable_format:constrained_response", {}, "I say: My answer is maybe.", "My answer is no"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* *b*", "*a* * *"),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 1}, "**a**", "*a\nb*"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "SECTION", "num_sections": 2},
        "SECTION 1\na\nSECTION2",
        "Section 1\nSection 2",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
    ("detectable_format:title", {}, "A <<title>> here", "<< >> or <title>"),
    ("combination:two_responses", {}, "one\n******\ntwo", "one******one"),
    ("combination:two_responses", {}, "******\none******two", "one******two******three"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Say it. "}, "\nsay it. It.", "I say it."),
    ("startend:end_checker", {"end_phrase": "Any more?"}, 'Yes. any more?" ', "Any more? No."),
    ("change_case:capital_word_frequency", {"capital_relation": "at least", "capital_frequency": 2}, "DON'T", "WAIT"),
    ("change_case:capital_word_frequency", {"capital_relation": "less than", "capital_frequency": 2}, "CO-OP", "A B"),
    ("change_case:english_capital", {}, "THIS IS A SHORT ANSWER.", "THIS IS a SHORT ANSWER."),
    ("change_case:english_lowercase", {}, "this is a short answer.", "das ist eine kurze antwort darauf."),
    ("punctuation:no_comma", {}, "one; two", "one, two"),
    ("startend:quotation", {}, ' "Yes." ', "“Yes.”"),
]


@pytest.mark.parametrize(("instruction", "arguments", "good", "bad"), FOLLOWED)
def test_an_instruction_is_followed_or_not(instruction, arguments, good, bad):
    assert is_followed(good, instruction, arguments)
    assert not is_followed(bad, instruction, arguments)
    assert not is_followed(" \n", instruction, arguments)


def test_all_kinds_are_tested():
    assert {instruction for instruction, *_ in FOLLOWED} == set(CHECKS) and len(CHECKS) == 25


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("One", 1),
        ("One. Two? Three!", 3),
        ("Dr. Smith met J. Smith at 5 p.m. in the U.S. market.", 1),
        ("It costs 3.50 dollars, i.e. little.", 1),
        ("Wait... no. Yes... Maybe", 3),
        ('"Come!" she said. "No."', 3),
        ("1. Apples\n2. Pears", 3),  # (NLTK counts the numbers too)
        ("What?! No way", 2),
        ("see www.example.com now", 1),
    ],
)
def test_sentences_are_counted(text, count):
    assert count_sentences(text) == count


def test_words_are_counted_as_the_published_tokenisers_do():
    assert count_words("It's a well-known fact: 3.5") == 8
    assert count_capital_words("I'M sure THE CO-OP can't, but CANNOT **WAIT** (NOW)") == 8
    assert count_capital_words("I'm 3D, ABC1. a b") == 3


def test_the_language_of_a_text_without_letters_is_not_known():
    assert language_of("12 + 3") is None and language_of("Ceci est une réponse courte.") == "fr"


def test_the_loose_reading_drops_lines_and_asterisks():
    assert loosened("Sure:\n*a*\nBye") == [
        "Sure:\n*a*\nBye",
        "*a*\nBye",
        "Sure:\n*a*",
        "*a*",
        "Sure:\na\nBye",
        "a\nBye",
        "Sure:\na",
        "a",
    ]


def row(answer) -> Row:
    turns = [Message(role="user", content="Write.")]
    text = answer if isinstance(answer, str) else json.dumps(answer)
    return Row(id="i/1", task="ifeval", kind="instruction", messages=turns, answer=text, verifiers=["constraints"])


NO_COMMA_SHORT = {
    "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
    # on the hub every row has all arguments, and numbers may come back as floats
    "kwargs": [{"num_words": None}, {"relation": "less than", "num_words": 3.0, "keywords": None}],
}


def test_the_score_is_that_all_are_followed_and_the_answer_says_which():
    asked = row(NO_COMMA_SHORT)
    verdict = verify(asked, "Good, good day")
    assert (verdict.answer, verdict.score) == ("no_comma: no, number_words: no", 0)
    assert fault(asked, verdict.answer) == "It does not follow no_comma and number_words"
    assert verify(asked, "Good day").score == 1
    assert verify(asked, "Sure, here it is:\nGood day").answer == "no_comma: no, number_words: no"
    assert verify(asked, "Sure, here it is:\nGood day", "loose").score == 1
    assert verify(asked, " \n").score is None


def test_the_other_accuracies_are_shares_of_prompts_and_instructions():
    figures = load_verifier("constraints").FIGURES
    said = {name: figure("Good, day", row(NO_COMMA_SHORT)) for name, figure in figures.items()}
    assert said == {"prompts, loose": (0, 1), "instructions, strict": (1, 2), "instructions, loose": (1, 2)}


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "yes",
        "[]",
        "[" * 100_000,
        {"instruction_id_list": ["punctuation:no_comma"]},
        {"instruction_id_list": ["punctuation:no_comma"], "kwargs": []},
        {"instruction_id_list": ["no_comma"], "kwargs": [{}]},
        {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "rain"}]},
        {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": [""]}]},
        {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": -1}]},
        {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": "two"}]},
        {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": " "}]},
    ],
)
def test_a_row_without_instructions_or_arguments_is_named_in_one_sentence(answer):
    with pytest.raises(UserError, match="row 'i/1': .*mend the row") as caught:
        verify(row(answer), "x")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300
