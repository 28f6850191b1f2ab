"""Routing of preference pairs: features by hand, planted effects, the proxy against scipy, and the simulation."""

import json

import numpy as np
import pytest

from data_recipes.errors import UserError
from pipelines.routing import proxy
from pipelines.routing.features import (
    FEATURES,
    TAGS,
    cosine,
    entities,
    entity_similarity,
    features,
    longest_common_subsequence,
    percentile_ranks,
    rouge_l,
    tagged,
    token_f1,
    words,
)
from pipelines.routing.gain import fit, learned, mixtures
from pipelines.routing.pairs import Pair
from pipelines.routing.simulate import simulate, split, summary
from tests.pipelines.routing_pairs import made_pairs

CAT, DOG = words("the cat sat on the mat"), words("the dog sat on a mat")


def test_similarities_by_hand():
    # common, as bags: the, sat, on, mat: 4 of 6 and 6
    assert token_f1(CAT, DOG) == pytest.approx(4 / 6)
    assert longest_common_subsequence(CAT, DOG) == 4 and rouge_l(CAT, DOG) == pytest.approx(4 / 6)
    assert rouge_l(list("abcd"), list("dcbae")) == pytest.approx(2 / 9), "a subsequence keeps the order"
    # counts: the 2 and 1, sat, on, mat 1: dot 2 + 3 = 5; norms sqrt(8) and sqrt(6)
    assert cosine(CAT, DOG) == pytest.approx(5 / 48**0.5)
    assert token_f1([], []) == rouge_l([], []) == cosine([], []) == 1 and cosine([], CAT) == rouge_l(CAT, []) == 0


def test_the_bit_parallel_subsequence_is_the_table_of_the_textbook():
    draw = np.random.default_rng(0)
    for _ in range(50):
        one, other = (list(map(str, draw.integers(0, 5, draw.integers(0, 90)))) for _ in range(2))
        table = np.zeros((len(one) + 1, len(other) + 1), int)
        for i, a in enumerate(one):
            for j, b in enumerate(other):
                table[i + 1, j + 1] = table[i, j] + 1 if a == b else max(table[i, j + 1], table[i + 1, j])
        assert longest_common_subsequence(one, other) == table[-1, -1]


def test_entities_are_names_within_a_sentence_and_numbers():
    assert entities("Today we met Ann Lee in Oslo. She paid 1,200.50 for 3 maps.") == {
        "ann", "lee", "oslo", "1,200.50", "3",
    }  # fmt: skip
    assert entity_similarity("We met Ann in Oslo.", "He saw Ann in Rome.") == pytest.approx(1 / 3)
    assert entity_similarity("We met.", "They left.") == 1 and entity_similarity("We met Ann.", "They left.") == 0


def test_features_of_a_pair_and_its_tags():
    pair = Pair(id="1", prompt="Say where the cat is.", a=" ".join(CAT), b="on it", ai="a")
    values = dict(zip(FEATURES, features(pair), strict=True))
    assert values["token_f1"] == pytest.approx(2 / 8) and values["entity_similarity"] == 1
    lengths = [values[name] for name in FEATURES if "length" in name]
    assert lengths == [4, 5, 2, 6]
    others = [Pair(id=str(n), prompt="x " * n, a="x " * 4 * n, b="x " * n, ai="a") for n in (2, 20)]
    matrix = tagged([pair, *others])
    assert matrix.shape == (3, len(TAGS)) and (matrix.sum(axis=1) == len(FEATURES)).all()
    tags = [{TAGS[i] for i in np.flatnonzero(row)} for row in matrix]
    # prompts of 5, 2 and 20 words: ranks 1/2, 1/6, 5/6; F1 0.25 is in [0, 0.33)
    assert {"token_f1 low", "entity_similarity high", "prompt_length middle"} <= tags[0]
    assert "prompt_length low" in tags[1] and "prompt_length high" in tags[2]
    assert percentile_ranks(np.array([7, 7, 1, 9])).tolist() == [0.5, 0.5, 0.125, 0.875]


def test_words_fold_case():
    assert words("It's 3 O'Clock") == ["it", "s", "3", "o", "clock"]


def test_the_proxy_is_the_ridge_logistic_regression_that_scipy_finds():
    from scipy.optimize import minimize

    draw = np.random.default_rng(1)
    table = draw.normal(size=(60, 3)) @ np.array([[1, 0.9, 0], [0, 1, 0], [0, 0, 1]])
    labels = np.where(draw.random((2, 60)) < 0.7, 1.0, -1.0) * np.sign(table[:, 0])

    def loss(weights, signs):
        return np.logaddexp(0, -signs * (table @ weights)).mean() + proxy.RIDGE / 2 * weights @ weights

    ours = proxy.fitted(table, labels)
    for weights, signs in zip(ours, labels, strict=True):
        assert weights == pytest.approx(minimize(loss, np.zeros(3), args=(signs,), tol=1e-10).x, abs=1e-3)
    assert proxy.preferred(table, ours, labels[0]).shape == (2, 60)


def test_swapping_the_answers_changes_the_sign():
    pair = made_pairs(1)[0]
    turned = pair.model_copy(update={"a": pair.b, "b": pair.a})
    table = proxy.differences([pair, turned])
    assert table[0] == pytest.approx(-table[1]) and np.abs(table).max() == pytest.approx(1)


def counts_of(number: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    pairs = made_pairs(90)
    tags = tagged(pairs)
    return mixtures(len(pairs), number, seed) @ tags, tags


def test_budgets_of_mixtures_run_from_none_to_all():
    asked = mixtures(20, 2000, 0)
    budgets = np.bincount(asked.sum(axis=1), minlength=21)
    assert len(budgets) == 21 and budgets.min() > 60 and abs(asked.mean(axis=0) - 0.5).max() < 0.05


def test_a_planted_linear_effect_is_recovered():
    counts, tags = counts_of(400)
    planted = TAGS.index("length_difference high")
    scores = 0.5 + 0.002 * counts[:, planted] + np.random.default_rng(2).normal(0, 0.002, len(counts))
    gain = fit(counts, scores, "linear")
    assert gain.r2 > 0.95 and gain.spearman > 0.9 and gain.beyond_budget > 0.3
    gains = gain.of(tags)
    has = tags[:, planted] == 1
    assert gains[has].min() > gains[~has].max()
    assert gain.predict(counts[:5]) == pytest.approx(scores[:5], abs=0.01)
    # the gain of the form is that of the prediction: f(x) - f(0)
    assert gains == pytest.approx(gain.predict(tags) - gain.predict(np.zeros((1, len(TAGS)))))


def test_a_planted_product_is_seen_by_the_quadratic_form_alone():
    draw = np.random.default_rng(3)
    counts = draw.integers(0, 20, (400, 4)).astype(float)
    centred = counts - counts.mean(axis=0)
    scores = 0.5 + 0.001 * centred[:, 0] * centred[:, 1]
    linear, quadratic = fit(counts, scores, "linear"), fit(counts, scores, "quadratic")
    assert linear.r2 < 0.2 and quadratic.r2 > 0.99
    # at the origin the product's slopes are minus the means: 0.001 * (-mean of the other) for each of the two
    one = quadratic.of(np.eye(4))
    assert one[:2] == pytest.approx(-0.001 * counts.mean(axis=0)[[1, 0]], abs=1e-3)
    assert abs(one[2:]).max() < 1e-3


def test_noise_is_not_foretold():
    counts, _ = counts_of(400)
    gain = fit(counts, np.random.default_rng(4).normal(size=400), "linear")
    assert gain.r2 < 0.1 and abs(gain.spearman) < 0.3 and gain.beyond_budget < 0.1


def test_a_score_that_only_the_number_of_labels_moves_shows_in_r2_and_not_beyond():
    counts, _ = counts_of(400)
    budgets = counts.sum(axis=1)
    noise = np.random.default_rng(5).normal(0, 0.02, 400)
    gain = fit(counts, 0.5 + 0.3 * budgets / budgets.max() + noise, "linear")
    assert gain.r2 > 0.9 and gain.beyond_budget < 0.05


def test_scores_that_do_not_vary_are_refused():
    with pytest.raises(ValueError, match="do not vary"):
        fit(np.eye(10), np.ones(10), "linear")


def test_too_few_or_agreeing_labels_are_refused():
    pairs = made_pairs(60)

    def learn(some):
        return learned(some, tagged(some), proxy.differences(some), ["linear"], 0, number=20)

    with pytest.raises(UserError, match="30 pairs have a human label"):
        learn(pairs[:30])
    with pytest.raises(UserError, match="agree on all 60 pairs"):
        learn([pair.model_copy(update={"human": pair.ai}) for pair in pairs])
    with pytest.raises(UserError, match="share one prompt"):
        learn([pair.model_copy(update={"prompt": "the same"}) for pair in pairs])


def write_pairs(path, pairs):
    path.write_text("".join(json.dumps(pair.model_dump()) + "\n" for pair in pairs))
    return path


def test_a_split_keeps_prompts_together_and_covers_all():
    pairs = [pair.model_copy(update={"prompt": f"prompt {number // 3}"}) for number, pair in enumerate(made_pairs(90))]
    parts = split(pairs, 5)
    assert sorted(np.concatenate(parts).tolist()) == list(range(90))
    assert [len(part) for part in parts] == [36, 27, 27]
    prompts = [{pairs[i].prompt for i in part} for part in parts]
    assert not prompts[0] & prompts[1] and not prompts[0] & prompts[2] and not prompts[1] & prompts[2]
    assert not np.array_equal(parts[0], split(pairs, 6)[0])


def test_where_the_model_errs_on_one_tag_routing_clearly_beats_random(tmp_path, capsys):
    file = write_pairs(tmp_path / "pairs.jsonl", made_pairs(300))
    simulate(file, tmp_path / "sim", seeds=6, budgets=(0.2, 0.3))
    results = json.loads((tmp_path / "sim" / "results.json").read_text())
    assert results["ai_right"] == pytest.approx(2 / 3)
    assert results["all"] > results["none"] + 0.2
    for cell in results["budgets"]:
        assert cell["random"]["ai_wrong"] == pytest.approx(1 / 3, abs=0.07)
        assert cell["linear"]["ai_wrong"] > 0.9, "nearly all that are chosen are of the tag"
        assert cell["linear"]["low"] > 0.05
    shown = capsys.readouterr().out
    assert "routed - random" in shown and "the model right on 66.7 %" in shown
    # killed after two seeds, the same command ends the same, byte for byte
    log, whole = tmp_path / "sim" / "seeds.jsonl", (tmp_path / "sim" / "results.json").read_bytes()
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    (tmp_path / "sim" / "results.json").unlink()
    simulate(file, tmp_path / "sim", seeds=6, budgets=(0.2, 0.3))
    assert log.read_bytes().splitlines(keepends=True) == lines
    assert (tmp_path / "sim" / "results.json").read_bytes() == whole
    with pytest.raises(UserError, match="of other pairs or budgets"):
        simulate(file, tmp_path / "sim", seeds=6, budgets=(0.2,))


def test_the_interval_is_that_of_overlapping_splits():
    def row(routed):
        cell = {"random": [0.5, 0.3], "linear": [routed, 0.4], "quadratic": [0.5, 0.3]}
        told = {form: {"r2": 0.0, "spearman": 0.0, "beyond_budget": 0.0} for form in ("linear", "quadratic")}
        return {"sizes": [40, 30, 30], "none": 0.4, "all": 0.7, "prediction": told, "budgets": [cell]}

    found = summary([row(0.6), row(0.7)], [0.5])["budgets"][0]
    # differences 0.1 and 0.2: mean 0.15, s^2 = 0.005; variance 0.005 (1/2 + 30/70); t with one degree 12.706
    half = 12.7062 * (0.005 * (1 / 2 + 30 / 70)) ** 0.5
    assert found["linear"]["difference"] == pytest.approx(0.15)
    assert (found["linear"]["low"], found["linear"]["high"]) == pytest.approx((0.15 - half, 0.15 + half), abs=1e-4)
    assert found["linear"]["seeds_better"] == 1 and found["quadratic"]["seeds_better"] == 0 and found["labels"] == 15


@pytest.mark.parametrize(
    ("number", "how", "told"),
    [
        (60, {"seeds": 5}, "60 pairs with a human label; a simulation takes 100"),
        (120, {"seeds": 1}, "--seeds 1: give 2 at least"),
        (120, {"seeds": 2, "budgets": (25.0,)}, "--budgets 25: give shares"),
    ],
)
def test_a_simulation_that_cannot_be_is_refused(tmp_path, number, how, told):
    file = write_pairs(tmp_path / "pairs.jsonl", made_pairs(number))
    with pytest.raises(UserError, match=told):
        simulate(file, tmp_path / "sim", **how)
    assert not (tmp_path / "sim" / "results.json").exists()
