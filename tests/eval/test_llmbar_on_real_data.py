"""The 499 published statistics files of LLMBar, computed again from the published verdicts; and all its pairs, read."""

import csv
import gzip
import json
import os
from collections import Counter, defaultdict
from math import isclose
from pathlib import Path

import pytest

from eval.agreement import FIRST, SECOND, cohen_kappa, swap_counts
from eval.benchmarks.llmbar import MAIN, SUBSETS, Settings, items

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def llmbar():
    return Path(os.environ["WHETSTONE_DATA"]) / "llmbar"


@pytest.fixture(scope="module")
def verdicts(llmbar):
    """(subset, evaluator) -> its judged pairs."""
    found = defaultdict(list)
    with gzip.open(llmbar / "judge_outputs.csv.gz", "rt", newline="") as file:
        for line in csv.DictReader(file):
            winners = (line["winner"] or None, line["winner_swapped_order"] or None)
            found[line["subset"], line["evaluator"]].append((line["label"], *winners))
    return found


@pytest.fixture(scope="module")
def published(llmbar):
    with open(llmbar / "published_statistics.csv", newline="") as file:
        return {
            (line["subset"], line["evaluator"]): json.loads(line["statistics_json"]) for line in csv.DictReader(file)
        }


def test_499_of_499_statistics_files_are_equal(verdicts, published):
    equal = Counter()
    for key, statistics in published.items():
        counts = swap_counts(verdicts[key])

        def share(count, n=counts.pairs):
            return f"{count} / {n} = {count / n * 100}%"

        equal["files"] += (
            statistics["correct_False"],
            statistics["correct_True"],
            statistics["correct_average"],
            statistics["correct_both"],
            statistics["equal"],
        ) == (
            share(counts.right_as_given),
            share(counts.right_swapped),
            f"{(counts.right_as_given + counts.right_swapped) / 2 / counts.pairs * 100}%",
            share(counts.right_both),
            share(counts.agreeing + counts.unread_both),
        )
    assert len(published) == len(verdicts) == 499 and equal["files"] == 499


def test_the_published_kappa_is_that_of_wrongly_mapped_labels(verdicts, published):
    """The script reads winners as ``int(w) if w in ("0", "1") else 0`` and leaves labels at 1 and 2."""
    for key, statistics in published.items():
        label, as_given, swapped = zip(*verdicts[key], strict=True)
        gold = [int(one) for one in label]
        given, turned = ([int(winner == "1") for winner in winners] for winners in (as_given, swapped))
        for name, pair in {
            "kappa_False": (given, gold),
            "kappa_True": (turned, gold),
            "kappa_agreement": (given, turned),
        }.items():
            assert isclose(cohen_kappa(*pair), statistics[name], abs_tol=1e-12), (key, name)


def test_the_right_kappa_of_the_best_judge_is_far_from_the_published(verdicts, published):
    key = ("LLMBar/Natural", "GPT-4/Vanilla")
    label, as_given, swapped = zip(*verdicts[key], strict=True)
    counts = swap_counts(verdicts[key])
    assert (counts.right_as_given + counts.right_swapped) / (2 * counts.pairs) == 0.955
    ours = cohen_kappa(as_given + swapped, label * 2)
    # worked out from the counts themselves: agreement 0.955, chance from both margins
    n, judged, gold = 2 * counts.pairs, Counter(as_given + swapped), Counter(label * 2)
    chance = sum(judged[one] * gold[one] for one in (FIRST, SECOND)) / n**2
    assert isclose(ours, (0.955 - chance) / (1 - chance)) and ours > 0.9
    assert published[key]["kappa_average"] < 0.3


def test_position_bias_shows_in_the_published_verdicts(verdicts):
    def first_shown(evaluator):
        judged = [one for folder in MAIN.values() for one in verdicts[folder, evaluator]]
        counts = swap_counts(judged)
        return counts.first_shown / counts.choices, counts.pairs

    gpt4, chatgpt = first_shown("GPT-4/Vanilla"), first_shown("ChatGPT-0301/Vanilla")
    assert gpt4[1] == chatgpt[1] == 419
    assert abs(gpt4[0] - 0.5) < 0.05 < abs(chatgpt[0] - 0.5)


def test_every_pair_of_every_subset_becomes_two_rows():
    rows = items(Settings(type="llmbar", subsets=list(SUBSETS)), None)
    pairs = Counter(row.meta["pair"].split("/")[0] for row in rows)
    assert set(pairs) == set(SUBSETS) and sum(pairs[name] for name in MAIN) == 2 * 419
    assert pairs["MT-Bench"] == 400 and len({row.id for row in rows}) == len(rows) == 2 * 1200
    clusters = {row.meta["cluster"] for row in rows if row.task == "llmbar/MT-Bench"}
    assert len(clusters) == 75  # 200 pairs of answers to 75 instructions


def test_verdicts_and_pairs_have_the_same_labels(verdicts):
    for subset, folder in MAIN.items():
        rows = items(Settings(type="llmbar", subsets=[subset]), None)
        given = [row.answer for row in rows if row.meta["order"] == "given"]
        labels = [label for label, _, _ in verdicts[folder, "GPT-4/Vanilla"]]
        assert given == [{FIRST: "A", SECOND: "B"}[label] for label in labels]
