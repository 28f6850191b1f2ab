"""What a critique is worth beyond its verdict: the place of the first mistake, and what a frozen reviser makes of it.

Two stages after Critique-RL (arXiv 2510.24320): r_dis = 1[the verdict is right] alone, then the reward of the revision
with r_dis kept in it, since a critic rewarded for revisions alone forgets how to tell right from wrong. That a fixed
model's revision must pass is CTRL's reward (2502.03492). The location, the weights (neither paper's were recovered)
and the mean over what a row can be judged by are our design.
"""

from collections.abc import Callable
from pathlib import Path

from data_recipes.errors import UserError
from data_recipes.files import read_jsonl
from data_recipes.row import Row
from eval.critique import correction_prompt, is_critique, judging_row
from eval.judges import Judged
from eval.models import resolve_model
from eval.verifiers import Verdict, load_verifier
from pipelines.experiment import Experiment
from pipelines.rl.reviser import Reviser
from pipelines.rl.sections import CritiqueRewardSection

PARTS = ("verdict", "located", "revised")
Judge = Callable[[list[tuple[Row, str]]], list[Judged]]


def weighted_mean(parts: dict[str, float], weights: dict[str, float]) -> float:
    """Return the mean of the parts, each with its weight: in [0, 1] as they are, whatever a row cannot be judged by."""
    return sum(weights[name] * value for name, value in parts.items()) / sum(weights[name] for name in parts)


def locating_row(row: Row) -> Row | None:
    """Return the row that judges where a critique sees the first mistake, None where the row knows no such place."""
    step = row.meta.get("first_wrong_step")
    if not step:
        return None
    return row.model_copy(update={"verifiers": ["step"], "answer": str(step)})


def revising_prompt(row: Row, critique: str) -> str | None:
    """Return what the reviser is asked: question, response and critique, never the truth.

    None where nothing could judge the revision.
    """
    if judging_row(row) is None or not row.meta.get("response"):
        return None
    return correction_prompt(row.meta["question"], row.meta["response"], critique)


def further_verifiers(rows: list[Row]) -> set[str]:
    """Return the names of the verifiers that judge the critiques' places and revisions.

    Raises:
        UserError: there is no such verifier.
    """
    judging = [one for row in rows if is_critique(row) for one in (locating_row(row), judging_row(row)) if one]
    names = {name for row in judging for name in row.verifiers}
    for name in names:
        load_verifier(name)
    return names


class CritiqueReward:
    """Turns the verifiers' judgments of critiques into rewards; those of other rows stay as they are.

    Args:
        reviser: None: nothing is revised.
    """

    def __init__(self, section: CritiqueRewardSection, judge: Judge, reviser: Reviser | None) -> None:
        self._section, self._judge, self._reviser = section, judge, reviser

    def __call__(self, asked: list[tuple[Row, str]], judged: list[Judged], step: int) -> list[Judged]:
        """Return what each (row, completion) is worth, given what its verifiers said of it.

        A critique whose verdict cannot be read has no reward, as before. One whose place or revision could not be
        judged (no room for it in the reviser's context, a verifier that failed) has none either: its other parts alone
        would be compared with whole rewards, and a critique too long to be revised would pay. A revision in which no
        answer can be read did not pass: 0, as a critique that names no step where there is one to name.

        Args:
            step: the first optimiser step that learns from these, counted from 1; it alone decides on the stage, so
                that a run taken up again gives the same rewards.
        """
        section = self._section
        revises = step > section.verdict_steps
        weights = {"verdict": 1.0, "located": 0.0}
        if revises:
            of_section = (section.verdict_weight, section.location_weight, section.revision_weight)
            weights = dict(zip(PARTS, of_section, strict=True))
        critiques = {
            number: (row, text)
            for number, ((row, text), one) in enumerate(zip(asked, judged, strict=True))
            if is_critique(row) and one.verdict.score is not None
        }
        parts = {number: {"verdict": judged[number].verdict.score} for number in critiques}
        problems: dict[int, str] = {}
        revisions = self._revisions(critiques, problems) if revises else {}
        places = {n: (place, text) for n, (row, text) in critiques.items() if (place := locating_row(row))}
        passes = {n: (judging_row(critiques[n][0]), text) for n, text in revisions.items()}
        for name, wanted in (("located", places), ("revised", passes)):
            for number, one in zip(wanted, self._judge(list(wanted.values())) if wanted else [], strict=True):
                if one.problem is None:
                    parts[number][name] = one.verdict.score or 0.0
                elif weights[name]:
                    problems.setdefault(number, f"{name}: {one.problem}")
        found = list(judged)
        for number in critiques:
            score = None if number in problems else weighted_mean(parts[number], weights)
            verdict = Verdict(score, judged[number].verdict.answer)
            found[number] = Judged(verdict, problems.get(number), parts[number], revisions.get(number))
        return found

    def _revisions(self, critiques: dict[int, tuple[Row, str]], problems: dict[int, str]) -> dict[int, str]:
        if self._reviser is None:
            return {}
        prompts = {n: prompt for n, one in critiques.items() if (prompt := revising_prompt(*one))}
        answers = dict(zip(prompts, self._reviser.revise(list(prompts.values())), strict=True))
        problems |= {n: "revised: no room for a revision in its context" for n, text in answers.items() if text is None}
        return {n: text for n, text in answers.items() if text is not None}

    def remember(self, row: Row, critique: str, revision: str | None) -> None:
        """Take in a revision that an earlier session of the run had made, so that it need not be made again."""
        if self._reviser and revision is not None and (prompt := revising_prompt(row, critique)):
            self._reviser.remember(prompt, revision)

    def remember_run(self, rollouts: Path, rows: list[Row], before: int) -> None:
        """Take in the revisions of the generations before number `before`: the next batch is then what it would have
        been without a break, and so are the reviser's answers to it."""
        by_id = {row.id: row for row in rows}
        for line in read_jsonl(rollouts, torn_line_ok=True) if rollouts.exists() else []:
            if line["generation"] < before and line["id"] in by_id:
                self.remember(by_id[line["id"]], line["completion"], line.get("revision"))

    def close(self) -> None:
        """End the reviser."""
        if self._reviser:
            self._reviser.close()


def open_critique_reward(
    experiment: Experiment, rows: list[Row], base: str, judge: Judge, folder: Path, rank: int
) -> CritiqueReward | None:
    """Return the reward of the experiment's critiques, or None where the verdict alone counts.

    Args:
        base: the weights that GRPO starts from.
        folder: of the stage; the reviser's log is kept there.

    Raises:
        UserError: there is nothing to reward so.
    """
    assert experiment.grpo is not None
    section = experiment.grpo.critique_reward
    if section is None:
        return None
    critiques = [row for row in rows if is_critique(row)]
    if not critiques:
        raise UserError("grpo.critique_reward: none of the rows to train on is a critique; leave it out")
    if not section.revision_weight:
        return CritiqueReward(section, judge, None)
    if not any(revising_prompt(row, "") for row in critiques):
        raise UserError(
            "grpo.critique_reward: no critique row knows the response and by what a revision is judged (meta.response,"
            " meta.gold, meta.gold_verifiers); run the critique stage anew, or set revision_weight: 0"
        )
    given, engine = section.reviser, experiment.engine
    settings = given.engine or engine.model_copy(
        update={
            "gpu_memory_utilization": min(engine.gpu_memory_utilization, 0.3),
            "tensor_parallel_size": 1,
            "data_parallel_size": 1,
        }
    )
    model = (given.model or base) if settings.type == "openai" else resolve_model(given.model or base)
    adapter = given.adapter and str(Path(given.adapter).expanduser())
    log = folder / (f"reviser-{rank}.log" if rank else "reviser.log")
    return CritiqueReward(section, judge, Reviser(settings, model, adapter, given.max_tokens, log))
