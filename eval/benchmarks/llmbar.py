"""LLMBar: which of two outputs follows the instruction better? Every pair is judged in both orders.

Items: github.com/princeton-nlp/LLMBar (MIT, arXiv 2310.07641). The question put here is our own, shorter than the
paper's Vanilla evaluator whose rules it keeps, so figures are not those of the paper's table. Its figures are
recomputed from the published verdicts by the same functions (`eval.agreement`); its kappa, computed from labels that
were mapped wrongly (1 and 2 read as 0 and 1), is not repeated: ours is Cohen's.
"""

from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import field_validator

from data_recipes.errors import UserError, nearest
from data_recipes.files import fingerprint
from data_recipes.row import Message, Row
from data_recipes.sources import Place, open_source
from eval.agreement import FIRST, SECOND
from eval.benchmarks import Answered, BenchmarkSettings, Metric
from eval.critique_metrics import mean_score, present
from eval.pairwise import answer_in, kappas, swap_shares

MAIN = {
    "Natural": "LLMBar/Natural",
    "Neighbor": "LLMBar/Adversarial/Neighbor",
    "GPTInst": "LLMBar/Adversarial/GPTInst",
    "GPTOut": "LLMBar/Adversarial/GPTOut",
    "Manual": "LLMBar/Adversarial/Manual",
}
"""The 419 pairs of the benchmark itself, by subset."""
SUBSETS = {
    **MAIN,
    **{name: f"CaseStudy/{name}" for name in ("Base_9", "Base_10", "Constraint", "Negation", "Normal")},
    **{name: f"Processed/{name}" for name in ("FairEval", "LLMEval^2", "MT-Bench")},
}
"""With the case studies and the sets of others that the authors processed: name -> folder under Dataset/."""
ADDRESS = "https://raw.githubusercontent.com/princeton-nlp/LLMBar/main/Dataset/{}/dataset.json"
OFFLINE = "{data}/llmbar/Dataset/%s/dataset.json"

ASK = """Two outputs were written for the same instruction. Which one is better?

Ask first which output does exactly what the instruction says, no more and no less. Then weigh how helpful, accurate, \
detailed and harmless they are. The order in which they are shown means nothing: either is as likely to be the better.

# Instruction
{input}

# Output (a)
{first}

# Output (b)
{second}

Reply with "Output (a)" or "Output (b)" and nothing else."""


class Settings(BenchmarkSettings):
    """An output's name is all that is asked for."""

    max_tokens: int = 50
    subsets: list[str] = list(MAIN)
    """Which to ask: LLMBar's own five, its case studies (Base_9, ...), the sets it processed (FairEval, ...)."""

    @field_validator("subsets")
    @classmethod
    def _exist(cls, subsets: list[str]) -> list[str]:
        for name in subsets:
            if name not in SUBSETS:
                raise ValueError(f"no subset {name!r}{nearest(name, SUBSETS)}")
        return list(dict.fromkeys(subsets))


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return two rows a pair, one an order.

    Raises:
        UserError: a subset cannot be had, or a record of it is no pair with a preference.
    """
    return [row for subset in settings.subsets for row in _rows(subset)]


def _rows(subset: str) -> list[Row]:
    folder = SUBSETS[subset]
    given = {"type": "files", "path": ADDRESS.format(quote(folder))}
    source = open_source(given | {"offline": {**given, "path": OFFLINE % folder}}, Place(Path()), f"llmbar, {subset}")
    rows = []
    for number, record in enumerate(source.records()):
        texts = _checked(record, f"llmbar, {source.settings.path}: record {number}")
        label = str(record["label"])
        cluster = fingerprint(texts[0])  # pairs that share their instruction stand or fall together
        for order, (first, second) in {"given": texts[1:], "swapped": texts[:0:-1]}.items():
            rows.append(
                Row(
                    id=f"llmbar/{subset}/{number}/{order}",
                    task=f"llmbar/{subset}",
                    kind="critique",
                    messages=[Message(role="user", content=ASK.format(input=texts[0], first=first, second=second))],
                    answer=answer_in(order, label),
                    verifiers=["preference"],
                    meta={
                        "question": texts[0],
                        "options": ["Output (a)", "Output (b)"],
                        "pair": f"{subset}/{number}",
                        "order": order,
                        "cluster": cluster,
                        "licence": "MIT",
                    },
                )
            )
    return rows


def _checked(record: dict[str, Any], where: str) -> list[str]:
    texts = [record.get(name) for name in ("input", "output_1", "output_2")]
    for name, text in zip(("input", "output_1", "output_2"), texts, strict=True):
        if not isinstance(text, str):
            raise UserError(f"{where} has no text {name!r}; fetch the set again")
    if str(record.get("label")) not in (FIRST, SECOND):
        raise UserError(f"{where}: its label is {record.get('label')!r:.40}, not 1 or 2; fetch the set again")
    return texts


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return accuracy over both orders, the figures of `eval.pairwise` in all and its shares by subset.

    ``accuracy`` is of all judgments; of each subset it is the task's score. Intervals resample instructions, with all
    pairs that share one.
    """
    found = present({"accuracy": mean_score(answered)}) | swap_shares(answered) | kappas(answered)
    for subset in settings.subsets:
        of_subset = [one for one in answered if one.row.task == f"llmbar/{subset}"]
        found |= {f"{name}, {subset}": metric for name, metric in swap_shares(of_subset).items()}
    return found
