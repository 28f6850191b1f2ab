"""The experiment file: one YAML that says what to mix, how to train, what to measure and where to run.

Every key is documented under its field. `sft:`, `reward_model:` and `grpo:` take TRL's own names beside ours.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from data_recipes.errors import UserError
from data_recipes.files import fingerprint
from data_recipes.recipe import Recipe, load_recipe
from data_recipes.validation import parse_yaml, read_yaml, validated
from eval.engines import EngineSettings
from eval.hardware import Dtype
from eval.models import check_adapter, check_model_name
from pipelines import trl_fields
from pipelines.critique.sections import MultiCritiqueSection
from pipelines.rl.sections import CritiqueRewardSection, GRPOSSection
from pipelines.sections import LaunchSection, ModelSection, Section
from pipelines.trackers import check_tracker_names

STAGES = ("critique", "multicritique", "mix", "sft", "reward_model", "grpo", "eval", "leaderboard")
"""In this order; a stage whose section the file leaves out is skipped."""
TRAINING = ("sft", "reward_model", "grpo")
"""Those that train, on as many processes as `launch` says, with TRL."""


class LoraSection(BaseModel):
    """Low-rank adapters (PEFT). Keys that are not listed here are those of PEFT's LoraConfig, such as ``use_dora``,
    ``use_rslora`` or ``init_lora_weights``."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)
    r: int = Field(16, ge=1)
    """Rank."""
    lora_alpha: int = Field(32, ge=1)
    """Scale: the adapter's output is multiplied by lora_alpha / r."""
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input."""
    target_modules: str | list[str] = "all-linear"
    """Layers that get an adapter."""


class CritiqueSection(Section):
    """Critique rows from verifiers: sample answers, label them, keep right and convincing wrong ones in balance."""

    tasks: list[str] = Field(min_length=1)
    """Tasks of the recipe whose questions are answered and criticised."""
    num_questions: int = Field(100, ge=1)
    """Training questions sampled, a task."""
    num_samples: int = Field(6, ge=2)
    """Answers sampled, a question."""
    num_examples: int = Field(3, ge=0)
    """Worked examples shown before each question, so that some answers are right."""
    models: dict[str, ModelSection] = {}
    """More models whose answers are sampled and criticised, by name; the experiment's own is always one."""
    temperature: float = Field(0.8, gt=0)
    """Sampling temperature."""
    max_tokens: int = Field(48, ge=1)
    """Longest answer, in tokens."""
    corrections: bool = False
    """Also write rows that ask for the right answer, given the question, a wrong answer and its critique."""
    train_rows: int = Field(40, ge=2)
    """Most critique rows a task to train on; half of them criticise right answers. Corrections come on top."""
    heldout_rows: int = Field(20, ge=2)
    """Most critique rows a task to hold out; half of them criticise right answers."""


class TrainingSection(BaseModel):
    """What the training stages share. Keys that are not listed here are TRL's."""

    model_config = ConfigDict(extra="allow", use_attribute_docstrings=True)
    lora: LoraSection | None = None
    """Train low-rank adapters; absent: train all weights."""
    dtype: Dtype = "auto"
    """Type of the weights; auto: bfloat16 where the hardware multiplies it, else float32. Adapters are float32."""
    quantization: Literal["4bit"] | None = None
    """Hold the frozen weights in 4 bits (QLoRA, bitsandbytes); needs lora and an NVIDIA GPU."""

    @property
    def trl(self) -> dict[str, Any]:
        """The keys that go to TRL as they are."""
        return dict(self.model_extra or {})


class SFTSection(TrainingSection):
    """Supervised fine-tuning on the mixture; other keys are those of TRL's SFTConfig."""

    batch_size: int | None = Field(None, ge=1)
    """Rows (packed: sequences) of an optimiser step over all processes; gradients are accumulated as that takes, so the
    same file trains alike on any number of them. Absent: TRL's own keys decide."""
    packing: bool = False
    """Put rows into sequences of max_length tokens, in which no row sees another."""
    assistant_only_loss: bool = False
    """Train on every assistant turn; otherwise on the last one."""
    balance: Literal["token", "example", "task", "uncertainty", "dwa", "famo"] | dict[str, float] = "token"
    """What the loss is a mean over: tokens, examples or tasks; or a weight for each task; or weights that follow the
    tasks' losses: uncertainty weighting, dynamic weight average, FAMO."""
    eval_sets: dict[str, str] = {}
    """More rows to measure the loss on, by name: JSON lines files beside the held-out rows of the mixture. TRL's
    eval_strategy and eval_steps say when."""
    best: str | None = None
    """Keep and end with the checkpoint of the lowest held-out loss: ``mean`` of the tasks, or a task's name."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a lower held-out loss after which a task is set aside; training ends with the last task."""
    generate_at: list[Annotated[int, Field(ge=0)]] = []
    """Optimiser steps after which the weights so far answer questions with the engine, and verifiers judge the answers;
    0: before the first."""
    generate_benchmarks: list[dict[str, Any]] = Field([{"type": "heldout"}], min_length=1)
    """What is asked at generate_at, as under eval.benchmarks; bits_per_byte is false unless it is given."""


class RewardModelSection(TrainingSection):
    """A reward model from the mixture's preference rows (``chosen`` and ``rejected``); other keys are those of TRL's
    RewardConfig."""

    tasks: list[str] = []
    """Tasks of the mixture to learn from; empty: all that have preference rows."""
    loss: Literal["ranking", "focal"] = "ranking"
    """Of a pair with P = sigmoid(r_chosen - r_rejected): -log P, or that times (1 - 2 max(0, P - 1/2))^gamma, by which
    pairs that are ranked right weigh less."""
    gamma: float | None = Field(None, ge=0)
    """Of the focal loss; absent: 2."""

    @model_validator(mode="after")
    def _gamma_of_focal(self) -> "RewardModelSection":
        if self.gamma is not None and self.loss != "focal":
            raise ValueError("gamma belongs to loss: focal; set that, or leave gamma out")
        return self


class OAPLSection(Section):
    """OAPL, KARL's off-policy objective (2603.05218): beta2 ln(pi / pi_ref) is regressed on reward less value, over the
    samples of prompts that are neither always nor never solved. TRL's steps_per_generation says how many batches are
    generated at once, num_iterations how often they are gone through; then the reference moves."""

    beta1: float = Field(0.5, gt=0)
    """Temperature of a prompt's value: 0 its best sample's reward, infinity their mean."""
    beta2: float = Field(0.5, gt=0)
    """Weight of the log-ratio; with beta2 = beta1 the target is a normalised policy."""


class GRPOSection(TrainingSection):
    """Reinforcement learning with the tasks' verifiers as rewards; other keys are those of TRL's GRPOConfig."""

    tasks: list[str] = []
    """Tasks of the mixture to train on (``critique/...`` included); empty: all that have a verifier, and with a reward
    model those of preference rows too."""
    reward_model: str | None = None
    """Folder of a reward model that judges the rows which name no verifier; absent: the reward_model stage's."""
    oapl: OAPLSection | None = None
    """Use OAPL instead of TRL's losses; ``{}`` takes its defaults."""
    critique_reward: CritiqueRewardSection | None = None
    """Reward critiques for more than their verdict: for the place of the first mistake, and for what a frozen reviser
    makes of them; ``{}`` takes the defaults. Absent: the verdict alone."""
    grpo_s: GRPOSSection | None = None
    """Weigh advantages by hardness, task by task (GRPO-S); ``{}`` takes the defaults."""
    reward_scale: dict[str, Annotated[float, Field(gt=0)]] = {}
    """By task, what its rewards are multiplied by. Advantages are normalised within a task, so it only tells under
    TRL's scale_rewards: none, and under OAPL."""
    verifier_timeout: float = Field(60.0, gt=0)
    """Longest time for judging one completion, in seconds; beyond it the sample is left out, and counted."""
    set_aside_for: int = Field(8, ge=0)
    """Generations during which a prompt isn't asked again after all its answers were right, or all wrong; 0: none is
    set aside."""
    rollouts: str | None = None
    """The rollouts.jsonl of another run of the same prompts, to learn from instead of generating."""
    stale_logp_difference: float = Field(0.15, gt=0)
    """Alarm when the mean gap in log p between trainer and rollout engine exceeds this: its weights are old."""

    @model_validator(mode="after")
    def _one_objective(self) -> "GRPOSection":
        losses = ("beta", "loss_type", "epsilon", "epsilon_high", "delta", "importance_sampling_level", "scale_rewards")
        given = [key for key in losses if key in self.trl]
        if self.oapl and given:
            raise ValueError(f"{given[0]} belongs to the losses that oapl takes the place of; leave one of them out")
        if self.oapl and self.grpo_s:
            raise ValueError("grpo_s weighs advantages, and oapl has none; leave one of them out")
        return self


class BaselineSection(Section):
    """A model or rule to compare with."""

    num_examples: int = Field(0, ge=0)
    """Worked examples before every question, from the training rows of its task."""
    constant: bool = False
    """No model: answer every question with its task's most frequent training answer."""


class EvalSection(Section):
    """What is measured, on which models."""

    benchmarks: list[dict[str, Any]] = Field([{"type": "heldout"}, {"type": "critique"}], min_length=1)
    """Each has a ``type``, the name of a file in eval/benchmarks/, and that benchmark's own keys."""
    models: dict[str, ModelSection] = {}
    """More rows of the leaderboard, by name: checkpoints and adapters. Names like ``mine@step-500`` tell which are
    checkpoints of one run: with several of them the noise within the run is shown."""
    baselines: dict[str, BaselineSection] = {
        "base": BaselineSection(),
        "base, 3 examples": BaselineSection(num_examples=3),
        "most frequent answer": BaselineSection(constant=True),
    }
    """Rows of the leaderboard beside the trained models; without a recipe only the base model, unless given."""


class Experiment(Section):
    """The whole file."""

    name: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Names the run folder's title and the Slurm job."""
    model: str
    """smollm2-135m-instruct, a hub id (owner/name) or a local folder."""
    recipe: str | None = None
    """A shipped recipe's name or a path beside this file; absent: nothing is mixed or trained, only evaluated."""
    output_dir: str
    """The run folder, relative to where the command runs."""
    seed: int = Field(0, ge=0)
    """Fixes questions, order, initial adapters and sampling."""
    engine: EngineSettings = EngineSettings()
    """How completions are generated."""
    critique: CritiqueSection | None = None
    """Critique rows from verifiers; absent: none are made."""
    multicritique: MultiCritiqueSection | None = None
    """Critiques by several agents; absent: none are made."""
    sft: SFTSection | None = None
    """Supervised fine-tuning; absent: skipped."""
    reward_model: RewardModelSection | None = None
    """A reward model from preference rows; absent: skipped."""
    grpo: GRPOSection | None = None
    """Reinforcement learning; absent: skipped."""
    eval: EvalSection | None = None
    """Evaluation and the leaderboard; absent: skipped."""
    launch: LaunchSection = LaunchSection()
    """Where the training stages run."""

    _recipe: Recipe | None = PrivateAttr(None)
    _recipe_path: Path | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _something_to_do(self) -> "Experiment":
        sections = ("critique", "multicritique", *TRAINING, "eval")
        if all(getattr(self, name) is None for name in sections):
            raise ValueError(f"nothing to do: give at least one of {', '.join(sections)}")
        if self.recipe is None:
            self._needs_no_recipe()
        if self.sft and self.sft.generate_at and self.engine.type == "openai":
            raise ValueError(
                "sft.generate_at: a server cannot be handed the weights in training; set engine.type: vllm"
            )
        return self

    def _needs_no_recipe(self) -> None:
        needing = [n for n in ("critique", "multicritique", *TRAINING) if getattr(self, n) is not None]
        if needing:
            raise ValueError(f"recipe is missing, and {needing[0]} needs one; name a recipe")
        assert self.eval is not None
        if "baselines" not in self.eval.model_fields_set:
            self.eval.baselines = {"base": BaselineSection()}
        for name, baseline in self.eval.baselines.items():
            if baseline.num_examples or baseline.constant:
                raise ValueError(
                    f"recipe is missing, and eval.baselines.{name} takes its answers from one; name a recipe"
                )

    @property
    def run_dir(self) -> Path:
        """The run folder, absolute."""
        return Path(self.output_dir).expanduser().absolute()

    @property
    def stages(self) -> list[str]:
        """The stages this file asks for, in order."""
        section_of = {"mix": "recipe", "leaderboard": "eval"}
        return [stage for stage in STAGES if getattr(self, section_of.get(stage, stage)) is not None]

    @property
    def starting_model(self) -> str:
        """The model that the stages after SFT start from: the SFT stage's where there is one.

        Raises:
            UserError: the SFT stage has not finished.
        """
        if self.sft is None:
            return self.model
        return str(self.model_of("sft"))

    @property
    def reward_models(self) -> list[str]:
        """Reward models that come from outside this run."""
        sections = (self.grpo, self.multicritique)
        return [section.reward_model for section in sections if section and section.reward_model]

    def model_of(self, stage: str) -> Path:
        """Return the folder of the model that a training stage of this run has made.

        Raises:
            UserError: the stage has not finished.
        """
        folder = self.run_dir / stage / "model"
        if not folder.is_dir():
            raise UserError(
                f"{folder}: the {stage} stage has not finished; run 'whetstone run FILE' or 'whetstone {stage} FILE'"
                " first"
            )
        return folder

    @property
    def mixture_recipe(self) -> tuple[Recipe, Path]:
        """The recipe as read, and its file (of an experiment that has one)."""
        assert self._recipe is not None and self._recipe_path is not None
        return self._recipe, self._recipe_path

    def fingerprint_of(self, stage: str) -> str:
        """Return what identifies the settings that `stage` and the stages before it depend on.

        Evaluation's own section is left out: the harness itself tells which completions fit it.
        """
        stages = self.stages[: self.stages.index(stage) + 1]
        keys = {"model", "seed", "engine", *stages} - {"eval"}
        settings = {key: value for key, value in self.model_dump().items() if key in keys}
        if "multicritique" in settings:
            del settings["multicritique"]["budget"]  # it may be raised, and the run goes on
        settings["engine"] = {key: settings["engine"][key] for key in ("type", "dtype", "chat_template")}
        return fingerprint([settings, self._recipe.model_dump() if self._recipe else None])

    def section_fingerprint(self, stage: str) -> str | None:
        """Return what identifies the section of a stage that is run again, rather than refused, when it changes."""
        return fingerprint(self.eval.model_dump()) if stage == "eval" and self.eval else None


SECTIONS = {"sft": SFTSection, "reward_model": RewardModelSection, "grpo": GRPOSection}
"""Of the training stages."""
trl_fields.SECTION_KEYS.update({name: tuple(section.model_fields) for name, section in SECTIONS.items()})


def load_experiment(path: Path, overrides: list[str] | None = None, check_trl: bool = True) -> Experiment:
    """Read, override and check an experiment file.

    Args:
        overrides: ``key=value`` with dots, such as ``sft.learning_rate=1e-4``; values are YAML.
        check_trl: also check the keys that go to TRL (imports it: seconds).

    Raises:
        UserError: whatever is wrong with the file, in one sentence.
    """
    values = read_yaml(path)
    for override in overrides or []:
        _override(values, override)
    where = str(path) + (" with --set" if overrides else "")
    experiment = validated(Experiment, values, where)
    if experiment.recipe is not None:
        experiment._recipe, experiment._recipe_path = load_recipe(experiment.recipe, beside=path.parent)
    if experiment.engine.type != "openai" or experiment.stages[0] != "eval":  # a server names its models as it likes
        check_model_name(experiment.model)
        _check_models(experiment, path)
    if check_trl:
        for name in TRAINING:
            section = getattr(experiment, name)
            if section is not None:
                section.__pydantic_extra__ = trl_fields.checked_fields(name, section.trl, where)
                check_tracker_names(section.trl.get("report_to"), f"{where}: {name}.report_to")
                if section.lora is not None and section.lora.model_extra:
                    ours = list(LoraSection.model_fields)
                    trl_fields.check_lora_fields(section.lora.model_extra, ours, f"{where}: {name}.lora")
    _check_tasks(experiment, path)
    return experiment


def _override(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise UserError(f"--set {override!r}: write it as key=value, such as sft.learning_rate=1e-4")
    *parents, last = key.split(".")
    inner: Any = values
    for parent in parents:
        inner = inner.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise UserError(f"--set {key}: {parent} holds no keys")
    inner[last] = parse_yaml(text, f"--set {key}")


def _check_tasks(experiment: Experiment, path: Path) -> None:
    from eval.verifiers import load_verifier

    _check_benchmarks(experiment, path)
    if experiment.recipe is None:
        return
    recipe, recipe_path = experiment.mixture_recipe
    for task, settings in recipe.tasks.items():
        for verifier in settings.verifiers:
            try:
                load_verifier(verifier)
            except UserError as error:
                raise UserError(f"{recipe_path}, tasks.{task}.verifiers: {error}") from None
    known = set(recipe.tasks)
    for task in experiment.critique.tasks if experiment.critique else []:
        _known_task(task, known, f"{path}: critique.tasks")
        if not recipe.tasks[task].verifiers:
            raise UserError(f"{path}: critique.tasks: {task!r} has no verifier to label answers with")
        known = known | {f"critique/{task}"}
    for name, key in (
        ("multicritique", "tasks"),
        ("reward_model", "tasks"),
        ("grpo", "tasks"),
        ("grpo", "reward_scale"),
    ):
        tasks = known if name != "multicritique" else set(recipe.tasks)
        for task in getattr(getattr(experiment, name), key, ()):
            _known_task(task, tasks, f"{path}: {name}.{key}")


def _check_models(experiment: Experiment, path: Path) -> None:
    given = {
        f"{section}.{kind}.{name}": one
        for section, kind in (("eval", "models"), ("critique", "models"), ("multicritique", "agents"))
        for name, one in getattr(getattr(experiment, section), kind, {}).items()
        if getattr(one, "engine", None) is None or one.engine.type != "openai"
    }
    for section in ("grpo", "multicritique"):
        if reward_model := getattr(getattr(experiment, section), "reward_model", None):
            given[f"{section}.reward_model"] = ModelSection(model=reward_model)
    grpo = experiment.grpo
    if grpo and grpo.critique_reward:
        reviser = grpo.critique_reward.reviser
        where = "grpo.critique_reward.reviser"
        if (reviser.engine or experiment.engine).type != "openai":
            given[where] = ModelSection(model=reviser.model, adapter=reviser.adapter)
        elif not reviser.model and grpo.critique_reward.revision_weight:
            raise UserError(f"{path}: {where}.model is missing; name one that the server has")
    if grpo and grpo.grpo_s:
        given["grpo.grpo_s.encoder"] = ModelSection(model=grpo.grpo_s.encoder)
    for where, one in given.items():
        try:
            if one.model:
                check_model_name(one.model)
            if one.adapter:
                check_adapter(one.adapter, one.model or experiment.model)
        except UserError as error:
            raise UserError(f"{path}: {where}: {error}") from None


def _check_benchmarks(experiment: Experiment, path: Path) -> None:
    from eval.run_folder import distinct_slugs

    if experiment.eval:
        names = [
            *experiment.eval.baselines,
            *experiment.eval.models,
            *(s for s in ("sft", "grpo") if s in experiment.stages),
        ]
        try:
            distinct_slugs(names)
        except UserError as error:
            raise UserError(f"{path}: eval: {error}") from None
        _check_settings(experiment.eval.benchmarks, f"{path}: eval.benchmarks")
    if experiment.sft:
        _check_settings(experiment.sft.generate_benchmarks, f"{path}: sft.generate_benchmarks")


def _check_settings(benchmarks: list[dict[str, Any]], key: str) -> None:
    from eval.benchmarks import load_benchmark

    labels = [str(one.get("name") or one.get("type")) for one in benchmarks]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice:
        raise UserError(f"{key}: two are called {twice!r}; give one of them another 'name'")
    for number, settings in enumerate(benchmarks):
        where = f"{key}.{number}"
        try:
            benchmark = load_benchmark(str(settings.get("type")))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        validated(benchmark.Settings, settings, where)


def _known_task(task: str, known: set[str], where: str) -> None:
    if task not in known:
        from data_recipes.errors import nearest

        raise UserError(f"{where}: unknown task {task!r}{nearest(task, known)}")
