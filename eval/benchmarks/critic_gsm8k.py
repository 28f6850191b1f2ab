"""Critic-GSM8K: is a solution of a GSM8K test question right? One right and one convincing wrong one a question.

The protocol is that of "Critique Ability of Large Language Models" (arXiv 2310.04815): examples with chain-of-thought
critiques, a ``Judgment:`` line, 8 runs at temperature 0.6 averaged, classes in balance. The paper's items were never
published; these come from the solutions of four GPT-3 models that were published with GSM8K, labelled right or wrong.
"""

from collections import defaultdict
from pathlib import Path

from pydantic import Field

from eval.benchmarks import Answered, BenchmarkSettings, Item, Metric
from eval.critique import Example, Sample, asked_for_verdict, certainty, convincing_pair, spread
from eval.critique_metrics import by_meta, evenly, present, verdict_metrics
from eval.halved_sets import records_of, required
from eval.verifiers import Verdict

SET = "gsm8k_solutions"
SOURCE = {
    "type": "labelled_solutions",
    "offline": {"type": "labelled_solutions", "path": "{data}/gsm8k/example_model_solutions.jsonl"},
}
PRINCIPLES = """\
Here are solutions to word problems, each with a critique. A critique redoes the solution step by step: does each step \
use the right quantities, is its arithmetic true, and does the last line answer what was asked? A response counts as \
correct only if its final answer is right. The critique ends with the line "Judgment: correct" or "Judgment: \
incorrect"."""
EXAMPLES = (
    Example(
        "A baker fills 6 trays with 12 rolls each and sells 50 of the rolls. How many rolls are left?",
        "She fills 6 trays of 12 rolls so she has 6 * 12 = 72 rolls\nShe sells 50 so 72 - 50 = 22 are left\nA: 22",
        "6 trays of 12 rolls are 6 * 12 = 72 rolls, as the first step says. Without the 50 that are sold, 72 - 50 = 22"
        " are left, which is what was asked.",
        "correct",
    ),
    Example(
        "Lena reads 15 pages on each of the five weekdays and 40 pages on each of the two days of the weekend. How many"
        " pages does she read in a week?",
        "On weekdays she reads 5 * 15 = 75 pages\nOn the weekend she reads 40 pages\nIn a week she reads 75 + 40 = 115"
        " pages\nA: 115",
        "The weekdays make 5 * 15 = 75 pages, which is true. The second step counts one day of the weekend, but there"
        " are two of 40 pages, 80 in all. The week comes to 75 + 80 = 155 pages, not 115.",
        "incorrect",
    ),
    Example(
        "A ticket costs $8, and children pay half. What do 2 adults and 3 children pay together?",
        "A child pays 8 / 2 = $4\nThe 3 children pay 3 * 4 = $12\nThe 2 adults pay 2 * 8 = $16\nTogether they pay"
        " 12 + 16 = $28\nA: 28",
        "Half of $8 is $4, so 3 children pay $12. 2 adults pay 2 * 8 = $16. 12 + 16 = 28 is the sum of both, which is"
        " what was asked.",
        "correct",
    ),
    Example(
        "A tank holds 90 litres and is one third full. How many litres are missing?",
        "A third of 90 litres is 90 / 3 = 30 litres\nSo 30 litres are missing\nA: 30",
        "A third of 90 is 30, but these 30 litres are in the tank. The second step takes them for what is missing,"
        " which is 90 - 30 = 60 litres.",
        "incorrect",
    ),
    Example(
        "Omar earns $14 an hour. He works 7 hours on Monday and 5 on Tuesday and then spends $30. What has he left?",
        "He works 7 + 5 = 12 hours\nHe earns 12 * 14 = $158\nHe has 158 - 30 = $128 left\nA: 128",
        "7 + 5 = 12 hours is right. The second step multiplies falsely: 12 * 14 is 168, not 158. He has 168 - 30 = $138"
        " left, not $128.",
        "incorrect",
    ),
)


class Settings(BenchmarkSettings):
    """The paper's settings: 5 examples, 8 runs at temperature 0.6."""

    max_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.6, ge=0)
    num_samples: int = Field(8, ge=1)
    num_shots: int = Field(len(EXAMPLES), ge=0, le=len(EXAMPLES))
    """Worked critiques before the question; 0: the bare question, in the words that the critique stage trains with."""
    items: int = Field(0, ge=0)
    """How many responses to ask about, half of them right; 0: all."""
    full: bool = False
    """Ask about the whole set; refused where the model was trained on half of it."""


def items(settings: Settings, mixture: Path | None) -> list[Item]:
    """Return one right and one convincing wrong solution of every question that has both among its four.

    Raises:
        UserError: the solutions cannot be had, or all are asked of a model trained on half of them.
    """
    by_question: dict[str, list[tuple[str, Sample]]] = defaultdict(list)
    questions = {}
    for record in records_of(SET, "question", mixture, settings.full, SOURCE):
        text, right, model = required(record, SET, solution=str, is_correct=bool, model=str)
        line = record["key"].partition("/")[0]
        questions[line] = record["question"]
        sample = Sample(text, Verdict(float(right), record["final_answer"]), len(by_question[line]))
        by_question[line].append((model, sample))
    pairs = {line: convincing_pair([sample for _, sample in made]) for line, made in by_question.items()}
    chosen = []
    for line in spread(
        (line for line, pair in pairs.items() if pair), settings.items // 2, lambda line: questions[line]
    ):
        sure = certainty([sample for _, sample in by_question[line]])
        for sample in pairs[line]:
            model = by_question[line][sample.seed][0]
            chosen.append(
                asked_for_verdict(
                    f"critic_gsm8k/{line}/{model}",
                    "critic_gsm8k",
                    questions[line],
                    sample.text,
                    sample.verdict.score == 1.0,
                    principles=PRINCIPLES,
                    examples=EXAMPLES[: settings.num_shots],
                    cluster=f"gsm8k/{line}",
                    certainty=sure,
                    source=model,
                    licence="MIT",
                )
            )
    return chosen


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return F1 of the wrong class, accuracy by class, by certainty and by the model that wrote the solution.

    Stronger models wrote more of the right solutions, so a style gives the class away in part; "sources weighed alike"
    is free of that.
    """
    alike = present({"accuracy, sources weighed alike": evenly(answered, "source")})
    return verdict_metrics(answered) | alike | by_meta(answered, "source")
