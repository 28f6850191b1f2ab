"""What the corrected paired tests support, in words."""

from collections.abc import Mapping, Sequence

from eval.leaderboard.columns import Column


def findings(columns: Mapping[str, Column], names: Sequence[str], baselines: Sequence[bool]) -> list[str]:
    """Say for each benchmark who leads, and what training did: SFT against the best baseline, GRPO against SFT."""
    sentences = []
    for label, column in columns.items():
        what = _what(label, column)
        answered = {names[row]: row for row in column.results}
        beaten = [row for row in column.results if baselines[row]]
        if beaten and "SFT" in answered:
            best = max(beaten, key=lambda row: column.entries[row].headline.value)
            sentences += _against(column, answered["SFT"], best, names, "the best baseline", what)
        if "SFT" in answered and "GRPO" in answered:
            sentences += _against(column, answered["GRPO"], answered["SFT"], names, "the model it started from", what)
        if column.pairs:
            sentences.append(_order(column, names, what))
    return sentences


def _what(label: str, column: Column) -> str:
    if len(column.tasks) == 1:
        return f"{label} ({len(column.items):,} items)"
    if column.headline == "micro":
        return f"{label} (mean over {len(column.items):,} items)"
    return f"{label} (mean over {len(column.tasks)} tasks)"


def _against(column: Column, ours: int, theirs: int, names: Sequence[str], role: str, what: str) -> list[str]:
    pair = next((one for one in column.pairs if {one.ours, one.theirs} == {ours, theirs}), None)
    if pair is None:
        return [f"On {what}, {names[ours]} and “{names[theirs]}”, {role}, have no item in common."]
    sign = 1 if pair.ours == ours else -1
    gain, bounds = 100 * sign * pair.difference, sorted((100 * sign * pair.low, 100 * sign * pair.high))
    verdict = "is not distinguishable from"
    if pair.told_apart:
        verdict = "is better than" if gain > 0 else "is worse than"
    return [
        f"On {what}, {names[ours]} {verdict} “{names[theirs]}”, {role}: {gain:+.1f} points"
        f" [{bounds[0]:+.1f}, {bounds[1]:+.1f}] (corrected p {shown_p(pair.corrected)})."
    ]


def shown_p(p: float) -> str:
    """Return a p value with its sign of comparison: ``= 0.031`` or ``< 0.001``."""
    return "< 0.001" if p < 0.001 else f"= {p:.3f}" if p < 0.1 else f"= {p:.2f}"


def _order(column: Column, names: Sequence[str], what: str) -> str:
    ability = column.ability
    smallest = f"{100 * ability.smallest:.1f} points" if ability.smallest else "none"
    if ability.told_apart == 0:
        return (
            f"On {what}, no two of the {len(column.results)} rows can be told apart; the smallest difference that would"
            f" show eight times in ten is {smallest}."
        )
    top = min(best for best, _ in column.ranks.values())  # rows of other items may beat one another in a circle
    first = [names[row] for row, (best, _) in column.ranks.items() if best == top]
    lead = f"“{first[0]}” ranks first" if len(first) == 1 else f"the first rank is open between {_listed(first)}"
    return f"On {what}, {ability.told_apart} of {ability.pairs} pairs of rows can be told apart; {lead}."


def _listed(names: list[str]) -> str:
    quoted = [f"“{name}”" for name in names]
    if len(quoted) > 6:
        return f"{len(quoted)} rows"
    return f"{', '.join(quoted[:-1])} and {quoted[-1]}"
