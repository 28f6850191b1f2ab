"""Prompts in the recipe's shares, set aside while they teach nothing, and drawn again alike after a restart."""

from collections import Counter

from pipelines.rl.prompts import PromptOrder, lag

ROWS = [list(range(10)), list(range(10, 14))]


def order(**changes) -> PromptOrder:
    settings = {"prompts": 4, "answers": 2, "repeats": 3, "generations": 12, "lag": 2, "set_aside_for": 5, "seed": 1}
    return PromptOrder(ROWS, [30, 10], **{**settings, **changes})


def chunks(drawn: list[int]) -> list[list[int]]:
    """Return the prompts of each generation."""
    return [drawn[start : start + 8 : 2] for start in range(0, len(drawn), 24)]


def test_each_generation_is_handed_out_whole_with_every_prompt_repeated():
    drawn = list(order())
    assert len(drawn) == len(order()) == 12 * 4 * 2 * 3
    for start in range(0, len(drawn), 24):
        first = drawn[start : start + 8]
        assert first[::2] == first[1::2] and drawn[start : start + 24] == first * 3
        assert len(set(first)) == 4, "no prompt twice"


def test_tasks_come_in_the_recipes_shares_and_prompts_take_turns():
    found = Counter(index for chunk in chunks(list(order(generations=10))) for index in chunk)
    assert sum(found[index] for index in ROWS[0]) == 30 and sum(found[index] for index in ROWS[1]) == 10
    assert {found[index] for index in ROWS[0]} <= {2, 3, 4} and {found[index] for index in ROWS[1]} <= {2, 3}
    assert list(order()) == list(order()) != list(order(seed=2))


def test_a_prompt_that_teaches_nothing_is_set_aside_and_revisited():
    watched = order(generations=40)
    seen: dict[int, list[int]] = {}
    stream = iter(watched)
    for generation in range(40):
        chunk = [next(stream) for _ in range(24)][:8:2]
        for index in chunk:
            seen.setdefault(index, []).append(generation)
        watched.observe(generation, [index for index in chunk if index == 3])
        if 3 in chunk:
            assert watched.set_aside(generation) == [0.1, 0.0]
    visits = seen[3]
    gaps = [later - earlier for earlier, later in zip(visits, visits[1:], strict=False)]
    assert len(visits) >= 4 and all(gap < 2 or gap >= 5 for gap in gaps), "what was fetched ahead is asked again once"
    assert len(seen[4]) > len(visits)
    replayed = order(generations=40)
    replayed.restore(watched.state())
    again = chunks(list(replayed))
    assert [g for g, chunk in enumerate(again) if 3 in chunk] == visits, "drawn again as they were"


def test_where_all_are_set_aside_the_first_to_return_is_asked():
    tired = order(generations=30)
    stream = iter(tired)
    for generation in range(30):
        tired.observe(generation, [next(stream) for _ in range(24)][:8:2])
    assert len(chunks(list(tired))) == 30


def test_nothing_is_set_aside_unless_asked_for():
    plain = order(set_aside_for=0)
    plain.observe(0, [3])
    assert plain.state() == [] and plain.set_aside(0) == [0.0, 0.0]


def test_outcomes_tell_after_what_is_fetched_ahead():
    assert lag(2, 2) == 2 and lag(4, 1) == 5 and lag(1, 8) == 2
