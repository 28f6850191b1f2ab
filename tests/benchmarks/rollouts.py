"""`python -m tests.benchmarks.rollouts`: GRPO's rollouts through vLLM against TRL's transformers generation, in turn.

SmolLM2-135M, LoRA on all linear layers, 32 prompts x 4 samples x 64 tokens a step, the same prompts on both sides. A
side's rate is generated tokens over the time of generation and weight sync; of several steps the first is warm-up.
A step takes minutes on two cores: ``STEPS=1 ROUNDS=1`` in the environment makes do with one a side.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
PROMPTS, SAMPLES, TOKENS = 32, 4, 64
STEPS, ROUNDS = int(os.environ.get("STEPS", "3")), int(os.environ.get("ROUNDS", "2"))
GRPO = {
    **{"max_steps": STEPS, "num_generations": SAMPLES, "max_completion_length": TOKENS, "save_strategy": "no"},
    **{"per_device_train_batch_size": 16, "gradient_accumulation_steps": PROMPTS * SAMPLES // 16},
    **{"learning_rate": 1e-5, "logging_steps": 1, "seed": 3},
}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def timed_generation() -> list[tuple[int, float]]:
    """Make TRL's trainer write down the tokens and the seconds of each generation, weight sync included."""
    from trl import GRPOTrainer

    made: list[tuple[int, float]] = []
    plain = GRPOTrainer._generate_single_turn

    def timed(self, *args, **kwargs):
        start = time.perf_counter()
        completions, logprobs = plain(self, *args, **kwargs)
        made.append((sum(map(len, completions)), time.perf_counter() - start))
        return completions, logprobs

    GRPOTrainer._generate_single_turn = timed
    return made


def ours(file: Path) -> None:
    """Run our stage on the experiment."""
    from pipelines.experiment import load_experiment
    from pipelines.grpo import train

    train(load_experiment(file))


def theirs(file: Path) -> None:
    """Run TRL's trainer as its documentation shows, on the prompts of the experiment's mixture, in the same order."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from data_recipes.row import Row
    from data_recipes.store import TRAIN, read_mixture
    from eval.hardware import concrete_dtype
    from eval.models import resolve_model
    from eval.verifiers import verify
    from pipelines.experiment import load_experiment

    experiment = load_experiment(file)
    rows = read_mixture(experiment.run_dir / "mixture", TRAIN)
    dtype = concrete_dtype("auto")
    folder = resolve_model(experiment.model)

    def reward(completions, row, **_):
        texts = [one[-1]["content"] for one in completions]
        return [verify(Row.model_validate_json(r), t).score for r, t in zip(row, texts, strict=True)]

    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder, dtype=dtype),
        processing_class=AutoTokenizer.from_pretrained(folder),
        args=GRPOConfig(
            output_dir=str(experiment.run_dir / "trl"),
            use_cpu=True,
            bf16=dtype == "bfloat16",
            gradient_checkpointing=False,
            report_to="none",
            beta=0.0,
            generation_kwargs={"min_new_tokens": TOKENS},
            **GRPO,
        ),
        reward_funcs=[reward],
        train_dataset=Dataset.from_list([{"prompt": r.prompt, "row": r.model_dump_json()} for r in rows]),
        peft_config=LoraConfig(task_type="CAUSAL_LM", **LORA),
    )
    trainer.train()


def experiment_in(folder: Path) -> Path:
    """Write the experiment and build its mixture."""
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix
    from tests.conftest import MODEL, SMALL_RECIPE

    (folder / "recipe.yaml").write_text(SMALL_RECIPE)
    grpo = {**{k: v for k, v in GRPO.items() if k != "seed"}, "lora": LORA, "generation_kwargs": {"min_tokens": TOKENS}}
    about = {"name": "rollouts", "model": MODEL, "recipe": "recipe.yaml", "output_dir": str(folder / "run"), "seed": 3}
    engine = {"max_model_len": 256, "max_num_seqs": PROMPTS * SAMPLES}
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump({**about, "engine": engine, "grpo": grpo}))
    mix(load_experiment(file))
    return file


def main() -> None:
    """Run the sides in turn and print their rates and ratios."""
    rates: dict[str, list[tuple[float, float]]] = {"ours": [], "trl": []}
    for _ in range(ROUNDS):
        for side in rates:
            with tempfile.TemporaryDirectory() as folder:
                file = experiment_in(Path(folder))
                command = [sys.executable, "-m", "tests.benchmarks.rollouts", side, str(file)]
                environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
                done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
                if done.returncode:
                    raise SystemExit(done.stderr[-3000:])
                said = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
            measured = [one[1:] or one for one in (said["generations"], said["steps"])]
            tokens, seconds = (sum(column) for column in zip(*measured[0], strict=True))
            step = statistics.mean(measured[1])
            rates[side].append((tokens / seconds, step))
            print(f"{side}: {tokens / seconds:.1f} tokens/s, {step:.1f} s a step, {tokens} tokens", flush=True)
    rate = {side: statistics.median(one for one, _ in found) for side, found in rates.items()}
    step = {side: statistics.median(one for _, one in found) for side, found in rates.items()}
    print(f"generation and sync: {rate['ours'] / rate['trl']:.2f} times")
    print(f"whole step: {step['trl'] / step['ours']:.2f} times")


def run_side(side: str, file: Path) -> None:
    """Run one side in this process and print what its generations and its steps took."""
    from transformers import TrainerCallback
    from trl import GRPOTrainer

    made, starts, steps = timed_generation(), [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            starts.append(time.perf_counter())

        def on_step_end(self, *args, **kwargs):
            steps.append(time.perf_counter() - starts[-1])

    plain = GRPOTrainer.__init__

    def started(self, *args, **kwargs):
        plain(self, *args, **kwargs)
        self.add_callback(Clock())

    GRPOTrainer.__init__ = started
    {"ours": ours, "trl": theirs}[side](file)
    print(json.dumps({"generations": made, "steps": steps}))


if __name__ == "__main__":
    run_side(sys.argv[1], Path(sys.argv[2])) if len(sys.argv) > 1 else main()
