"""The experiment file: what is accepted, what is refused and how."""

import json
from pathlib import Path

import pytest

from data_recipes.errors import UserError
from launch.schema import json_schema, reference
from pipelines.evaluate import contestants
from pipelines.experiment import load_experiment

GOOD = """
sft:
  lora: {r: 4}
  learning_rate: 1e-4
  max_steps: 2
eval: {}
"""


def test_a_good_file_is_read_and_trl_fields_get_their_types(small_experiment):
    experiment = load_experiment(small_experiment(GOOD), ["sft.weight_decay=0", "sft.lora.r=8"])
    assert experiment.sft.trl["learning_rate"] == 1e-4 and experiment.sft.trl["max_steps"] == 2
    assert experiment.sft.lora.r == 8
    assert experiment.stages == ["mix", "sft", "eval", "leaderboard"]


def test_without_a_recipe_only_the_base_model_is_evaluated_unless_the_file_says_more(small_experiment):
    evaluation = "eval:\n  benchmarks: [{type: mmlu_pro}]\n  models: {late@step-9: {}}\n"
    experiment = load_experiment(small_experiment(evaluation), ["recipe=null"])
    assert experiment.stages == ["eval", "leaderboard"] and list(experiment.eval.baselines) == ["base"]
    assert [row.name for row in contestants(experiment)] == ["base", "late@step-9"]
    with pytest.raises(UserError, match="row 'base': cannot have a folder of its own beside 'base'"):
        contestants(load_experiment(small_experiment(evaluation), ["recipe=null", "eval.models={base: {}}"]))


def test_what_is_measured_may_grow_but_what_it_was_made_with_may_not_change(small_experiment):
    first, more, other, faster = (
        load_experiment(small_experiment(GOOD), overrides)
        for overrides in ([], ["eval.benchmarks=[{type: heldout}]"], ["seed=4"], ["engine.kv_cache_gb=4"])
    )
    assert first.fingerprint_of("eval") == more.fingerprint_of("eval") == faster.fingerprint_of("eval")
    assert first.section_fingerprint("eval") != more.section_fingerprint("eval")
    assert first.fingerprint_of("eval") != other.fingerprint_of("eval")


@pytest.mark.parametrize(
    ("sections", "overrides", "message"),
    [
        ("stf: {}\n", [], "unknown key 'stf' .did you mean 'sft'"),
        (GOOD, ["sft.learning_rat=1"], "unknown key 'sft.learning_rat' .did you mean 'learning_rate'"),
        (GOOD, ["sft.lorra=1"], "unknown key 'sft.lorra' .did you mean 'lora'"),
        (GOOD, ["sft.lora.rank=1"], "unknown key 'sft.lora.rank'"),
        (GOOD, ["sft.learning_rate=fast"], "sft.learning_rate: .* not 'fast'"),
        (GOOD, ["sft.output_dir=x"], "sft.output_dir is not for the file: the run folder decides it"),
        (GOOD, ["sft"], "write it as key=value"),
        (GOOD, ["name.x=1"], "name holds no keys"),
        (GOOD, ["engine.type=sglang"], "engine.type"),
        (GOOD, ["engine.max_model_length=5"], "unknown key 'engine.max_model_length' .did you mean 'max_model_len'"),
        (GOOD, ["recipe=quickstrat"], "neither a shipped recipe nor a file .did you mean 'quickstart'"),
        (GOOD, ["critique.tasks=[chain_sums]"], "unknown task 'chain_sums' .did you mean 'chain_sum'"),
        (GOOD, ["grpo.tasks=[critique/chain_sum]"], "unknown task 'critique/chain_sum'"),
        (GOOD, ["eval.benchmarks=[{type: heldoot}]"], "unknown benchmark 'heldoot' .did you mean 'heldout'"),
        (GOOD, ["eval.benchmarks=[{type: heldout, tokens: 1}]"], "unknown key 'tokens'"),
        (GOOD, ["launch.time=soon"], "launch.time"),
        (GOOD, ["seed=-1"], "seed: Input should be greater than or equal to 0"),
        ("", [], "nothing to do"),
        (GOOD, ["recipe=null"], "recipe is missing, and sft needs one"),
        (
            GOOD,
            ["recipe=null", "sft=null", "eval.baselines={b: {constant: true}}"],
            "eval.baselines.b takes its answers",
        ),
        (GOOD, ["eval.models={x: {model: nowhere}}"], "eval.models.x: model 'nowhere': no such folder"),
        (GOOD, ["eval.models={x: {adapter: nowhere}}"], "eval.models.x: adapter 'nowhere' of .*: no such adapter"),
        (GOOD, ["eval.models={x: {adaptor: y}}"], "unknown key 'eval.models.x.adaptor' .did you mean 'adapter'"),
        (GOOD, ["eval.benchmarks=[]"], "eval.benchmarks"),
        (GOOD, ["eval.benchmarks=[{type: heldout, on_failure: gues}]"], "on_failure"),
        (GOOD, ["eval.benchmarks=[{type: heldout, num_samples: 0}]"], "num_samples"),
        (GOOD, ["engine.type=openai"], "base_url is missing"),
        (GOOD, ["engine.base_url=http://x"], "base_url is only for type openai"),
        ("sft: {learning_rate: 1, learning_rate: 2}\n", [], "the key 'learning_rate' is given twice"),
        ("sft: [\n", [], "not valid YAML"),
        ("name: again\n", [], "the key 'name' is given twice"),
    ],
)
def test_a_wrong_file_is_answered_in_one_sentence(small_experiment, sections, overrides, message):
    with pytest.raises(UserError, match=message) as caught:
        load_experiment(small_experiment(sections), overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.yaml: no such file"):
        load_experiment(tmp_path / "nowhere.yaml")


def test_a_stage_depends_on_its_own_settings_and_those_before_it(small_experiment):
    file = small_experiment(GOOD)
    plain = load_experiment(file, check_trl=False)
    other_eval = load_experiment(file, ["eval.baselines={base: {}}"], check_trl=False)
    other_rate = load_experiment(file, ["sft.learning_rate=2e-4"], check_trl=False)
    assert plain.fingerprint_of("sft") == other_eval.fingerprint_of("sft") != other_rate.fingerprint_of("sft")
    assert plain.section_fingerprint("eval") != other_eval.section_fingerprint("eval")
    assert plain.fingerprint_of("mix") == other_rate.fingerprint_of("mix")
    (file.parent / "recipe.yaml").write_text((file.parent / "recipe.yaml").read_text().replace("seed: 1", "seed: 9"))
    assert load_experiment(file, check_trl=False).fingerprint_of("mix") != plain.fingerprint_of("mix")


def test_the_schema_knows_our_keys_and_trls():
    schema = json_schema()
    sft = schema["$defs"]["SFTSection"]
    assert {"lora", "learning_rate", "max_length"} <= set(sft["properties"])
    assert sft["additionalProperties"] is False
    assert "epsilon" in schema["$defs"]["GRPOSection"]["properties"]
    json.dumps(schema)


def test_the_reference_page_is_current():
    page = Path(__file__).parents[2] / "docs" / "experiment-file.md"
    assert page.read_text().strip() == reference().strip(), "type: make docs"
