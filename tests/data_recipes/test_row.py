import pytest
from pydantic import ValidationError

from data_recipes.row import Message, Row, normalise


def test_prompt_and_target_are_cut_at_the_last_assistant_turn():
    turns = [
        Message(role="user", content="a"),
        Message(role="assistant", content="b"),
        Message(role="user", content="c"),
    ]
    asked = Row(id="1", task="t", kind="domain", messages=turns)
    assert [turn["content"] for turn in asked.prompt] == ["a", "b", "c"] and asked.target is None
    answered = Row(id="1", task="t", kind="domain", messages=[*turns, Message(role="assistant", content="d")])
    assert [turn["content"] for turn in answered.prompt] == ["a", "b", "c"] and answered.target == "d"
    assert answered.question == "c"


@pytest.mark.parametrize(
    "bad",
    [
        {"kind": "poetry"},
        {"messages": []},
        {"messages": [{"role": "assistant", "content": "no question"}]},
        {"verifiers": ["number"]},
        {"chosen": [{"role": "assistant", "content": "x"}]},
        {"id": ""},
        {"weight": 2},
    ],
)
def test_a_row_that_is_not_whole_is_refused(bad):
    good = {"id": "1", "task": "t", "kind": "domain", "messages": [{"role": "user", "content": "q"}]}
    Row.model_validate(good)
    with pytest.raises(ValidationError):
        Row.model_validate(good | bad)


def test_normalise_folds_case_space_and_width_but_keeps_operators():
    assert normalise("  What  IS\n３ + 5?") == "what is 3 + 5?"
    assert normalise("3 - 2") != normalise("3 + 2")
