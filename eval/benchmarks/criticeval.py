"""CriticEval's objective half: ratings, comparisons in both orders, corrections that run, and ratings of critiques.

Lan et al., NeurIPS 2024 (arXiv 2402.13764; code github.com/open-compass/CriticEval, Apache-2.0; items on the hub,
opencompass/CriticBench, the name it had first). The hub's test split withholds its labels, so the dev split is asked;
its figures are not those of the published leaderboard, which is of the test split. The subjective half, in which GPT-4
rates critiques, is not done here.

Four dimensions over nine domains: *feedback*, Spearman's correlation of 1-7 ratings with people's; *comparison*, the
share of pairs judged rightly in both orders; *correction*, the mean pass rate of four domains; *meta-feedback*, as
feedback but rating critiques.
"""

import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from data_recipes.errors import UserError
from data_recipes.files import fingerprint
from data_recipes.row import Message, Row
from data_recipes.sources import Place, open_source
from eval.agreement import FIRST, SECOND, SWAPPED, TIE, Judged, spearman
from eval.benchmarks import Answered, BenchmarkSettings, Metric
from eval.criticeval_prompts import fill
from eval.pairwise import answer_in, given_of, judged_pairs, pair_of, swap_shares
from eval.program_tests import python_tests
from eval.scoring import mean_scores
from eval.statistics import Scores, bootstrap_interval
from eval.verifiers import number

Dimension = Literal["feedback", "comparison", "correction", "meta_feedback"]

DOMAINS = (
    *("translate", "chat", "qa", "harmlessness", "summary"),
    *("math_cot", "math_pot", "code_exec", "code_not_exec"),
)
CHECKED = ("math_cot", "math_pot", "code_exec", "code_not_exec")
"""Domains whose corrections can be checked without a judge."""
ADDRESS = "https://huggingface.co/datasets/opencompass/CriticBench/resolve/main/"
OFFLINE = "{data}/criticeval/"
SCALE = (1.0, 7.0)
PREFERRED = {"A": FIRST, "B": SECOND, "C": TIE}
"""What a gold preference ends with (ansA, ...)."""


class Settings(BenchmarkSettings):
    """Corrections write whole solutions; everything else is one line if the model does as it is asked."""

    max_tokens: int = 1024
    split: Literal["dev", "test"] = "dev"
    """test needs the labels, which the hub's copy lacks."""
    dimensions: list[Dimension] = ["feedback", "comparison", "correction", "meta_feedback"]
    """What is asked; the overall score needs all four."""


def items(settings: Settings, mixture: Path | None) -> list[Row]:
    """Return the rows of the chosen dimensions; a comparison is two rows.

    Raises:
        UserError: the records or prompts cannot be had, or a record lacks a column or its label.
    """
    rows = []
    for dimension in dict.fromkeys(settings.dimensions):
        for domain in CHECKED if dimension == "correction" else DOMAINS:
            for file in _files(dimension, domain):
                rows += _rows(dimension, domain, f"obj_{settings.split}_data/{file}")
    return rows


def _files(dimension: Dimension, domain: str) -> list[str]:
    if dimension == "comparison":
        return [f"{domain}_comp_feedback.json"]
    if dimension == "meta_feedback":
        return [f"meta_feedback_single/meta_feedback_singlewise_{domain}.json"]
    files = [f"{domain}_feedback_correction.json"]
    if dimension == "feedback" and domain != "code_exec":
        files.append(f"correction_part/{domain}_feedback.json")  # responses of very high quality
    return files


def _rows(dimension: Dimension, domain: str, file: str) -> list[Row]:
    given = {"type": "files", "path": ADDRESS + file, "offline": {"type": "files", "path": OFFLINE + file}}
    source = open_source(given, Place(Path()), "criticeval")
    rows = []
    for index, record in enumerate(source.records()):
        where = f"criticeval, {file}: record {index}"
        name = f"{domain}{'/high' if 'correction_part' in file else ''}/{index}"
        rows += _MAKERS[dimension](domain, name, _columns(record), where)
    return rows


def _columns(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record's columns, those of its objective part among them, and an execution result as its text."""
    columns = {**record, **(record["obj"] if isinstance(record.get("obj"), dict) else {})}
    for name in ("exec_rest", "exec_rest_a", "exec_rest_b"):
        if isinstance(columns.get(name), dict):
            columns[name] = columns[name].get("detail")
    return columns


def _row(
    dimension: Dimension,
    domain: str,
    name: str,
    columns: dict[str, Any],
    where: str,
    answer: str,
    verifier: str,
    **meta: Any,
) -> Row:
    published = {"comparison": "comp_feedback"}.get(dimension, dimension)
    texts = {key: str(value) for key, value in columns.items() if value is not None}
    question = texts.get("question", "")
    return Row(
        id=f"criticeval/{dimension}/{name}",
        task=f"criticeval/{dimension}",
        kind="critique",
        messages=[Message(role="user", content=fill(published, domain, texts, where))],
        answer=answer,
        verifiers=[verifier],
        meta={
            "question": question,
            "domain": domain,
            "cluster": fingerprint(question),
            "licence": "Apache-2.0",
            **meta,
        },
    )


def _label(columns: dict[str, Any], name: str, where: str) -> Any:
    if columns.get(name) is None:
        raise UserError(f"{where} has no {name!r}; the hub's test split withholds its labels, so set split: dev")
    return columns[name]


def _rating(columns: dict[str, Any], name: str, where: str) -> str:
    label = _label(columns, name, where)
    try:
        if SCALE[0] <= float(label) <= SCALE[1]:
            return str(label)
    except (TypeError, ValueError):
        pass
    raise UserError(f"{where}: its {name} is {label!r:.40}, not a number from 1 to 7; fetch the set again")


def _feedback(domain: str, name: str, columns: dict[str, Any], where: str) -> list[Row]:
    gold = _rating(columns, "feedback_score", where)
    return [_row("feedback", domain, name, columns, where, gold, "rating", scale=SCALE, label="Decision")]


def _meta_feedback(domain: str, name: str, columns: dict[str, Any], where: str) -> list[Row]:
    # the evaluator reads the first name; the hub's files were also seen read under the second
    column = "meta_feedback_score" if columns.get("meta_feedback_score") is not None else "annotated_scores"
    gold = _rating(columns, column, where)
    return [_row("meta_feedback", domain, name, columns, where, gold, "rating", scale=SCALE, label="Score")]


def _comparison(domain: str, name: str, columns: dict[str, Any], where: str) -> list[Row]:
    label = str(_label(columns, "preference", where))
    if label[-1:] not in PREFERRED:
        raise UserError(f"{where}: its preference is {label!r:.40}, which does not end in A, B or C; fetch it again")
    rows = []
    for order in ("given", "swapped"):
        answer = answer_in(order, PREFERRED[label[-1]])
        more = {"pair": name, "order": order}
        rows.append(_row("comparison", domain, f"{name}/{order}", columns, where, answer, "preference", **more))
        turned = (("generation_a", "generation_b"), ("exec_rest_a", "exec_rest_b"))
        columns = {**columns, **{to: columns.get(of) for a, b in turned for to, of in ((a, b), (b, a))}}
    return rows


def _correction(domain: str, name: str, columns: dict[str, Any], where: str) -> list[Row]:
    more = {}
    if domain.startswith("math"):
        gold = str(_label(columns, "ground_truth_answer", where))
        answer = number.read(gold, _NO_ROW)
        if answer is None:
            raise UserError(f"{where}: its ground_truth_answer {gold!r:.40} holds no number; fetch the set again")
        if domain == "math_pot":
            tests = f"assert math.isclose(the_answer(), {float(answer.replace(',', ''))!r}, rel_tol=1e-9, abs_tol=1e-9)"
            more = {"tests": python_tests(tests, where), "entry_point": "Solution"}
    else:
        answer = str(_label(columns, "unit_test", where))
        call = f"\ncheck({_tested(columns, where)})" if columns.get("data_source") == "humaneval" else ""
        more = {"tests": python_tests(answer + call, where)}
    return [_row("correction", domain, name, columns, where, answer, "criticeval", **more)]


def _tested(columns: dict[str, Any], where: str) -> str:
    """Return the function that HumanEval's ``check`` is given: the question's last, else the response's first.

    The evaluator takes the first function of whatever the model wrote.
    """
    asked, written = (re.findall(r"^\s*def (\w+)\(", str(columns.get(k)), re.M) for k in ("question", "generation"))
    if not asked + written:
        raise UserError(f"{where}: neither its question nor its generation has a function to test; fetch the set again")
    return asked[-1] if asked else written[0]


_NO_ROW = Row(id="gold", task="gold", kind="domain", messages=[Message(role="user", content="")])
_MAKERS: dict[str, Callable[[str, str, dict[str, Any], str], list[Row]]] = {
    "feedback": _feedback,
    "comparison": _comparison,
    "correction": _correction,
    "meta_feedback": _meta_feedback,
}


def overall(feedback: float, comparison: float, correction: float, meta_feedback: float) -> float:
    """Return the objective overall score, in percent, as ``compute_overall.py`` has it.

    Correlations (times 100) are moved from [-100, 100] to [0, 100] before the mean of the four is taken. Of the 36 rows
    of the published table 28 agree with it; see docs/judge-benchmarks.md.
    """
    return ((feedback + 100) / 2 + comparison + correction + (meta_feedback + 100) / 2) / 4


def pair_is_right(judged: Judged, published: bool) -> bool:
    """Tell whether a pair counts as judged rightly: the better output (or the tie) is named in both orders.

    Args:
        published: the evaluator's rule instead: the letters of the two orders differ and the first is right. A tie in
            both orders, C and C, then never counts, and a tie in the second order alone is forgiven.
    """
    label, as_given, swapped = judged
    if not published:
        return as_given == swapped == label
    return as_given == label and swapped is not None and as_given != SWAPPED[swapped]


def _of(answered: list[Answered], dimension: Dimension) -> list[Answered]:
    return [one for one in answered if one.row.task == f"criticeval/{dimension}"]


def _pairs_right(settings: Settings, compared: list[Answered]) -> list[tuple[Answered, bool]]:
    pairs = judged_pairs(compared)
    published = settings.extraction == "compat"
    return [(one, pair_is_right(pairs[pair_of(one)], published)) for one in given_of(compared, pairs)]


def scores(settings: Settings, answered: list[Answered]) -> Scores:
    """Return 0 or 1 for each pair and each correction, and for each rating how close it is (`eval.verifiers.rating`).

    A pair goes by the name of its row in the given order.
    """
    compared = _of(answered, "comparison")
    found = mean_scores(one for one in answered if one.row.task != "criticeval/comparison")
    samples: dict[str, list[bool]] = defaultdict(list)
    for one, right in _pairs_right(settings, compared):
        samples[one.row.id].append(right)
    if samples:
        found["criticeval/comparison"] = {name: sum(rights) / len(rights) for name, rights in sorted(samples.items())}
    return dict(sorted(found.items()))


Unit = dict[str, list[tuple[Any, Any]]]
"""Of one cluster: dimension (of corrections: domain) -> (predicted, gold) or (right, 1) of each answer."""


def metrics(settings: Settings, answered: list[Answered]) -> dict[str, Metric]:
    """Return the four published figures and the overall score, and what both orders tell of the comparisons.

    All on the published scale, times 100. A rating that cannot be read stands in the middle of the ranks; an unread
    answer makes its pair wrong. Intervals resample questions, in all dimensions at once.
    """
    units: dict[str, Unit] = defaultdict(lambda: defaultdict(list))
    for one in answered:
        unit = units[str(one.row.meta["cluster"])]
        dimension = one.row.task.removeprefix("criticeval/")
        if dimension in ("feedback", "meta_feedback"):
            said = one.verdict.answer
            unit[dimension].append((None if said is None else float(said), float(one.row.answer)))
        elif dimension == "correction":
            unit[one.row.meta["domain"]].append((one.score, 1))
    compared = _of(answered, "comparison")
    for one, right in _pairs_right(settings, compared):
        units[str(one.row.meta["cluster"])]["comparison"].append((right, 1))
    clusters = list(units.values())
    found = {}
    for name, (statistic, keys) in _FIGURES.items():
        value = statistic(clusters)
        if value is not None:
            n = sum(len(unit[key]) for unit in clusters for key in keys)
            found[name] = Metric(value, *bootstrap_interval(clusters, statistic), n=n, percent=False)
    return found | {f"comparison, {name}": metric for name, metric in swap_shares(compared).items()}


def _correlation(clusters: list[Unit], key: str) -> float | None:
    pairs = [pair for unit in clusters for pair in unit.get(key, ())]
    rho = spearman([said for said, _ in pairs], [gold for _, gold in pairs])
    return None if rho is None else 100 * rho


def _share(clusters: list[Unit], key: str) -> float | None:
    right = [score for unit in clusters for score, _ in unit.get(key, ())]
    return 100 * sum(right) / len(right) if right else None


def _feedback_figure(clusters: list[Unit]) -> float | None:
    return _correlation(clusters, "feedback")


def _meta_feedback_figure(clusters: list[Unit]) -> float | None:
    return _correlation(clusters, "meta_feedback")


def _comparison_figure(clusters: list[Unit]) -> float | None:
    return _share(clusters, "comparison")


def _correction_figure(clusters: list[Unit]) -> float | None:
    """The mean of the domains' pass rates, of whichever were asked."""
    rates = [rate for domain in CHECKED if (rate := _share(clusters, domain)) is not None]
    return sum(rates) / len(rates) if rates else None


def _overall_figure(clusters: list[Unit]) -> float | None:
    figures = [_FIGURES[name][0](clusters) for name in ("feedback", "comparison", "correction", "meta_feedback")]
    return None if None in figures else overall(*figures)


_FIGURES: dict[str, tuple[Callable[[list[Unit]], float | None], tuple[str, ...]]] = {
    "feedback": (_feedback_figure, ("feedback",)),
    "comparison": (_comparison_figure, ("comparison",)),
    "correction": (_correction_figure, CHECKED),
    "meta_feedback": (_meta_feedback_figure, ("meta_feedback",)),
    "overall": (_overall_figure, ("feedback", "comparison", *CHECKED, "meta_feedback")),
}
