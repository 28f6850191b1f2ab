"""What nothing trains on: the test splits of known benchmarks, by hub id and by file, and those that come in halves."""

import glob
from collections.abc import Iterable
from dataclasses import dataclass

from data_recipes.errors import UserError
from data_recipes.sources import Source


@dataclass(frozen=True)
class EvaluationSet:
    """An evaluation set as sources may name it."""

    name: str
    files: tuple[str, ...]
    """Ends of the paths its items have in their repositories (or under WHETSTONE_DATA)."""
    hub: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """(hub id, splits); no splits: every one."""
    halves: bool = False
    """Only evaluation items exist: one half, by the hash of the question, may be trained on."""
    repeats: tuple[str, ...] = ()
    """Other sets whose questions it holds: who reads half of it reads that half of them."""


SETS = (
    EvaluationSet("gsm8k", ("gsm8k/test.jsonl",), (("openai/gsm8k", ("test",)), ("gsm8k", ("test",)))),
    EvaluationSet("gsm8k_solutions", ("example_model_solutions.jsonl",), halves=True, repeats=("gsm8k",)),
    EvaluationSet("mmlu_pro", ("mmlu_pro/test/",), (("TIGER-Lab/MMLU-Pro", ()),)),
    EvaluationSet(
        "math",
        ("math/math.jsonl", "math500.jsonl"),
        (
            ("HuggingFaceH4/MATH-500", ()),
            ("EleutherAI/hendrycks_math", ("test",)),
            ("hendrycks/competition_math", ("test",)),
        ),
    ),
    EvaluationSet("svamp", ("math/svamp.jsonl",), (("ChilleD/SVAMP", ("test",)),)),
    EvaluationSet("asdiv", ("math/asdiv.jsonl",), (("EleutherAI/asdiv", ()),)),
    EvaluationSet("mawps", ("math/mawps.jsonl",), (("mwpt5/MAWPS", ()),)),
    EvaluationSet("aqua", ("aqua/test.json", "aqua/dev.json"), (("deepmind/aqua_rat", ("test", "validation")),)),
    EvaluationSet("bbh", ("bbh/bbh/",), (("lukaemon/bbh", ()),)),
    EvaluationSet("humaneval", ("HumanEval.jsonl.gz",), (("openai/openai_humaneval", ()),)),
    EvaluationSet("mbpp", ("mbpp.jsonl",), (("google-research-datasets/mbpp", ("test", "validation")),)),
    EvaluationSet("cruxeval", ("cruxeval.jsonl",), (("cruxeval-org/cruxeval", ()),)),
    EvaluationSet("ifeval", ("code_and_format/input_data.jsonl",), (("google/IFEval", ()),)),
    EvaluationSet("truthfulqa", ("TruthfulQA.csv",), (("truthfulqa/truthful_qa", ()),)),
    EvaluationSet("llmbar", ("LLMBar/",), (("princeton-nlp/LLMBar", ()),)),
    EvaluationSet("pubmedqa", ("ori_pqal.json",), (("qiaojin/PubMedQA", ()),)),
    EvaluationSet("medqa", ("medqa_us_test.jsonl",), (("GBaker/MedQA-USMLE-4-options", ("test",)),), halves=True),
    EvaluationSet(
        "medmcqa", ("medmcqa_dev.json",), (("openlifescienceai/medmcqa", ("validation", "test")),), halves=True
    ),
    EvaluationSet(
        "tatqa",
        ("tatqa_dataset_dev.json", "tatqa_dataset_test_gold.json"),
        (("next-tat/TAT-QA", ("validation", "test")),),
        halves=True,
    ),
    EvaluationSet(
        "finance_sentiment",
        ("finance_sentiment/sent_valid.csv",),
        (("zeroshot/twitter-financial-news-sentiment", ("validation",)),),
        halves=True,
    ),
    EvaluationSet("realcritic", ("realcritic/", "RealCritic/"), halves=True, repeats=("gsm8k", "math")),
    EvaluationSet("criticbench", ("criticbench/test.jsonl",), (("llm-agents/CriticBench", ()),)),
    EvaluationSet("criticeval", ("obj_dev_data/", "obj_test_data/"), (("opencompass/CriticBench", ()),)),
    EvaluationSet("bigbench_mistake", ("bigbench_mistake/", "BIG-Bench-Mistake/"), halves=True, repeats=("bbh",)),
)


def set_of(source: Source) -> EvaluationSet | None:
    """Return the evaluation set whose items a source reads, or None."""
    settings = source.settings
    if settings.type == "hub":
        for one in SETS:
            for dataset, splits in one.hub:
                if settings.dataset.lower() == dataset.lower() and (not splits or settings.split in splits):
                    return one
        return None
    if settings.type == "pubmedqa":
        return next(one for one in SETS if one.name == "pubmedqa") if settings.part == "test" else None
    for path in _paths(source):
        for one in SETS:
            if any(f"/{end}" in path for end in one.files):
                return one
    return None


def _paths(source: Source) -> list[str]:
    """Return the paths a source names, as written and as they are found on disk."""
    given = getattr(source.settings, "path", None)
    written = [given] if isinstance(given, str) else given or []
    found = ["/" + path.replace("{data}", "") for path in written]
    for path in written:
        if not path.startswith(("https://", "http://")):
            try:
                local = source.place.resolve(path)
            except UserError:
                continue  # the source itself says what is wrong
            found += [str(local), *glob.glob(str(local))]
    return found


def refuse_test_split(source: Source) -> None:
    """Refuse to train on an evaluation set, but for the half of one that comes in halves.

    Raises:
        UserError: the source is such a set.
    """
    one = set_of(source)
    if one is None or (one.halves and source.settings.half == "train"):
        return
    has_training_split = any(splits for _, splits in one.hub) or one.name in ("gsm8k", "pubmedqa")
    mend = "take its training split" if has_training_split else "take another source"
    mend = "add 'half: train' to read the half that may be" if one.halves else mend
    raise UserError(f"{source.where}: {one.name} is an evaluation set, which nothing trains on; {mend}")


def refuse_full_set(name: str, trained_on: Iterable[str]) -> None:
    """Refuse an official score on a whole evaluation set for a model that was trained on part of it.

    Args:
        trained_on: the sets of which the model's mixture read a half (its manifest's ``halves_trained_on``).

    Raises:
        UserError: `name` is among them.
    """
    if name in trained_on:
        raise UserError(
            f"{name}: the model was trained on half of this set, so a score on all of it means nothing; evaluate the"
            " held-out half (leave out 'full: true')"
        )


SHARED = frozenset(name for one in SETS if one.halves for name in (one.name, *one.repeats))
"""Sets of which a mixture may hold the training half."""


def halves_in(sources: Iterable[Source]) -> list[str]:
    """Return the names of the evaluation sets of which any of `sources` reads the training half, sorted."""
    read = [one for source in sources if source.settings.half == "train" and (one := set_of(source))]
    return sorted({name for one in read for name in (one.name, *one.repeats)})
