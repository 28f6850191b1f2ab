"""LoRA fine-tuning against TRL's SFTTrainer and LLaMA-Factory: useful tokens per second, and share of the matmul limit.

    python -m tests.benchmarks.sft_throughput             # needs WHETSTONE_DATA and a quiet machine; some 20 minutes

Rows of the cocktail recipe, evenly over its lengths, the same on every side and compared token by token; float32,
adapters on all linear layers, no checkpointing, `sdpa` attention, the same rows a batch and the same threads. Each side
runs in a process of its own, in turn. A pass before the clock starts warms up. Useful tokens, those that are not
padding, per second are the tokens of the steps within half a minute and more, over the time they took with all that a
step does, less the share of padding in an epoch of the side's own batches: few steps measure a speed well, but not
padding.

Then full batches, rows all cut to one length, for how much of this machine's float32 matrix product a trainer uses.
Counted for both alike is what the loss needs, and once where something is computed twice: 4 FLOP for each weight of the
linear layers and each token (forward, and backward to the activations), 6 for each weight of the adapters (which have
gradients of their own), 4 for each weight of the head and each *trained* token. Attention's own products are left out.

TRL's packing has no padding but makes one sequence of a batch, whose rows are kept apart by a mask as wide as all of it
(transformers sets it from the positions, under `sdpa` too). LLaMA-Factory is installed into ``build/llama-factory`` (or
lies in the folder LLAMA_FACTORY names), beside nothing of ours; where it cannot be had the rest is measured.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

ROUNDS, SECONDS, ROWS, BATCH, LENGTH = 2, 30, 512, 8, 768
PACKED_BATCH = 2
"""Packed sequences of `LENGTH` a step: about the tokens of `BATCH` rows."""
FULL_ROWS, FULL_LENGTH = 64, 256
RANK, ALPHA, RATE = 16, 32, 1e-3
PADDING = "<empty_output>"
"""Pads on every side: a token that no row has, where the model's own ends every turn."""

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "sft-throughput"
PEER = Path(os.environ.get("LLAMA_FACTORY", ROOT / "build" / "llama-factory")).absolute()
PINS = (  # the newest that LLaMA-Factory allows, and of what it needs only what text needs
    *("llamafactory==0.9.5", "transformers==5.6.0", "trl==0.24.0", "datasets==4.0.0", "peft==0.18.1"),
    *("accelerate==1.11.0", "tokenizers==0.22.2", "omegaconf==2.4.0", "antlr4-python3-runtime==4.9.3", "dill==0.3.8"),
    *("multiprocess==0.70.16", "fsspec==2025.3.0", "tyro==0.8.14", "torchdata==0.11.0"),
)

SIDES = ("ours", "trl", "llama-factory", "ours-packed", "trl-packed", "llama-factory-packed")
FULL_SIDES = ("ours-full", "trl-full")
NAMES = {
    "ours": "ours, rows of like length",
    "ours-packed": "ours, packed",
    "trl": "TRL, as it comes",
    "trl-packed": "TRL, packed (bfd)",
    "llama-factory": "LLaMA-Factory, as it comes",
    "llama-factory-packed": "LLaMA-Factory, neat packing",
    "ours-full": "ours",
    "trl-full": "TRL",
}


# What runs in every process, the peer's too: nothing of ours or of TRL's may be imported up here.


def meter(file: Path) -> type:
    """Return a trainer callback that measures a run and writes what it found to `file`."""
    import torch
    from transformers import TrainerCallback

    class Meter(TrainerCallback):
        """Reads an epoch without training, warms up, then counts what goes through the embeddings until the step in
        which `SECONDS` are over."""

        def on_train_begin(
            self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **kwargs: Any
        ) -> None:
            padding = json.loads((WORK / "padding.json").read_text())
            epoch = torch.cat([batch["input_ids"].reshape(-1) for batch in train_dataloader])
            self._epoch = torch.bincount(epoch[epoch != padding], minlength=50_000)
            self._padding = 1 - int(self._epoch.sum()) / len(epoch)
            ids = torch.randint(100, 40_000, (2, 256), generator=torch.Generator().manual_seed(0))
            model(input_ids=ids, labels=ids, attention_mask=torch.ones_like(ids)).loss.backward()
            model.zero_grad()
            self._tokens = 0
            model.get_input_embeddings().register_forward_pre_hook(self._count)
            self._start = time.monotonic()

        def _count(self, module: Any, inputs: tuple[torch.Tensor, ...]) -> None:
            self._tokens += inputs[0].numel()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self._seconds = time.monotonic() - self._start
            control.should_training_stop |= self._seconds > SECONDS

        def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            weights = {"linear": 0, "adapters": 0, "head": model.get_output_embeddings().weight.numel()}
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    weights["adapters"] += parameter.numel()
                elif "_proj" in name:
                    weights["linear"] += parameter.numel()
            kinds = {str(parameter.dtype) for parameter in model.parameters()}
            found = {
                "rate": self._tokens / self._seconds,
                "seconds": self._seconds,
                "steps": state.global_step,
                "padding": self._padding,
                "epoch": self._epoch.tolist(),
                "weights": weights,
                "settings": [model.config._attn_implementation, model.is_gradient_checkpointing, *sorted(kinds)],
                "losses": [line["loss"] for line in state.log_history if "loss" in line],
            }
            file.write_text(json.dumps(found))

    return Meter


def measure_side(side: str, seed: int, file: Path) -> None:
    """Run a side in this process."""
    if side == "matmul":
        file.write_text(json.dumps(matmul_limit()))
        return
    from transformers import trainer

    trainer.DEFAULT_CALLBACKS.append(meter(file))
    program, _, form = side.rpartition("-") if side.endswith(("-packed", "-full")) else (side, "", "")
    {"ours": ours, "trl": theirs, "llama-factory": peers}[program](form, seed)


def matmul_limit() -> float:
    """Return the FLOP a second of a large float32 matrix product, the best of twenty."""
    import torch

    size = 3072
    a, b = torch.randn(size, size), torch.randn(size, size)
    best = float("inf")
    for _ in range(20):
        start = time.monotonic()
        torch.mm(a, b)
        best = min(best, time.monotonic() - start)
    return 2 * size**3 / best


def ours(form: str, seed: int) -> None:
    """Train with `pipelines.sft`, as `whetstone sft` does."""
    from pipelines.experiment import load_experiment
    from pipelines.sft import train

    folder = WORK / ("full" if form == "full" else "mixed")
    shutil.rmtree(folder / "run" / "sft", ignore_errors=True)
    forms = {"packed": {"packing": True, "per_device_train_batch_size": PACKED_BATCH}}
    values = {**forms.get(form, {}), "max_length": FULL_LENGTH if form == "full" else LENGTH}
    train(load_experiment(folder / "experiment.yaml", [f"seed={seed}", *(f"sft.{k}={v}" for k, v in values.items())]))


def theirs(form: str, seed: int) -> None:
    """Train with TRL's own trainer, its own order and its own collator."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = json.loads((WORK / ("full" if form == "full" else "mixed") / "rows.json").read_text())
    masks = [[int(place >= row["target"]) for place in range(len(row["ids"]))] for row in rows]
    arguments = SFTConfig(
        output_dir=str(WORK / "trl"),
        per_device_train_batch_size=PACKED_BATCH if form == "packed" else BATCH,
        max_length=FULL_LENGTH if form == "full" else LENGTH,
        packing=form == "packed",
        num_train_epochs=1,
        seed=seed,
        learning_rate=RATE,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
        completion_only_loss=True,
    )
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(WORK / "model", dtype=torch.float32),
        args=arguments,
        train_dataset=Dataset.from_dict({"input_ids": [row["ids"] for row in rows], "completion_mask": masks}),
        processing_class=AutoTokenizer.from_pretrained(WORK / "model"),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.train()


def peers(form: str, seed: int) -> None:
    """Train with LLaMA-Factory's own entry point."""
    from llamafactory.train.tuner import run_exp

    batch = PACKED_BATCH if form == "packed" else BATCH
    arguments = {
        **{"stage": "sft", "do_train": True, "model_name_or_path": str(WORK / "model"), "template": "empty"},
        **{"dataset_dir": str(WORK / "mixed"), "dataset": "rows", "cutoff_len": LENGTH, "mask_history": True},
        **{"finetuning_type": "lora", "lora_target": "all", "lora_rank": RANK, "lora_alpha": ALPHA},
        **{"packing": form == "packed", "neat_packing": form == "packed"},
        **{"per_device_train_batch_size": batch, "num_train_epochs": 1, "seed": seed, "learning_rate": RATE},
        **{"disable_gradient_checkpointing": True, "flash_attn": "sdpa", "fp16": False, "bf16": False},
        **{"output_dir": str(WORK / "llama-factory"), "save_strategy": "no", "report_to": "none", "use_cpu": True},
        **{"logging_steps": 1, "disable_tqdm": True, "dataloader_pin_memory": False},
        **{"overwrite_cache": True, "cache_dir": str(WORK / "cache")},
    }
    shutil.rmtree(WORK / "llama-factory", ignore_errors=True)  # it does not write into a folder with anything in it
    run_exp(arguments)


# What prepares and compares, in our own environment.


def main() -> None:
    """Measure, compare and print."""
    WORK.mkdir(parents=True, exist_ok=True)
    full_flop, share = prepare()
    there = _peer_is_there()
    sides = [side for side in SIDES if there or not side.startswith("llama-factory")]
    found: dict[str, list[dict[str, Any]]] = {side: [] for side in (*sides, *FULL_SIDES, "matmul")}
    for number in range(ROUNDS):
        for side in list(found):
            try:
                last = run(side, number)
            except RuntimeError as error:
                if not side.startswith("llama-factory"):
                    raise
                print(f"{side} does not run here, so it is left out: {error}", flush=True)
                del found[side]
                continue
            found[side].append(last)
            if side != "matmul":
                about = f"{last['steps']} steps in {last['seconds']:.0f} s, load {os.getloadavg()[0]:.1f}"
                print(f"  round {number + 1}, {side}: {last['rate']:.1f} tokens/s with padding ({about})", flush=True)
    mixed = {side: found[side] for side in sides if side in found}
    _compare(mixed)
    _print_throughput(mixed, share)
    _print_shares({side: found[side] for side in FULL_SIDES}, max(found["matmul"]), full_flop)


def prepare() -> tuple["Flop", float]:
    """Write the model in float32 with another padding token, and both sets of rows.

    Returns:
        What tells an epoch of full batches' FLOP, and the padding of the whole recipe in batches as they come.
    """
    import numpy as np
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from data_recipes.mixing import draws_of
    from eval.models import resolve_model

    shutil.rmtree(WORK / "model", ignore_errors=True)
    model = resolve_model("smollm2-135m-instruct")
    # LLaMA-Factory takes the weights as they are stored
    AutoModelForCausalLM.from_pretrained(model, dtype="float32").save_pretrained(WORK / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.pad_token = PADDING
    tokenizer.save_pretrained(WORK / "model")
    (WORK / "padding.json").write_text(str(tokenizer.pad_token_id))
    mixture = _mixture(WORK / "cocktail", "cocktail")
    order = draws_of(mixture.manifest).order(seed=0)
    rows = order.indices(0, len(order))
    rows = rows[(mixture.lengths[rows] <= LENGTH) & (mixture.targets[rows] < mixture.lengths[rows])]
    lengths = mixture.lengths[rows[: len(rows) // BATCH * BATCH]].reshape(-1, BATCH)
    share = 1 - lengths.sum() / (lengths.max(axis=1) * BATCH).sum()
    rows = rows[np.lexsort((rows, mixture.lengths[rows]))]
    rows = rows[((np.arange(ROWS) + 0.5) * len(rows) / ROWS).astype(int)]  # evenly over the recipe's lengths
    _write(WORK / "mixed", mixture, np.random.default_rng(0).permutation(rows), tokenizer, None)
    places = np.arange(len(mixture))
    long = places[(mixture.lengths >= FULL_LENGTH) & (mixture.targets < FULL_LENGTH * 0.75)]
    chosen = np.random.default_rng(0).permutation(long)[:FULL_ROWS]
    _write(WORK / "full", mixture, chosen, tokenizer, FULL_LENGTH)
    trained = int((FULL_LENGTH - mixture.targets[chosen]).sum())
    return Flop(FULL_ROWS * FULL_LENGTH, trained), float(share)


class Flop:
    """The FLOP of an epoch that its loss needs; the module's docstring says what counts."""

    def __init__(self, tokens: int, trained: int) -> None:
        self.tokens, self.trained = tokens, trained

    def __call__(self, weights: dict[str, int]) -> float:
        """Return the sum for a model of so many ``linear``, ``adapters`` and ``head`` weights."""
        a_token = 4 * weights["linear"] + 6 * weights["adapters"]
        return self.tokens * a_token + self.trained * 4 * weights["head"]


def _mixture(folder: Path, recipe: str) -> Any:
    """Build a mixture of the recipe, or open the one built before."""
    import yaml

    from data_recipes.store import Mixture
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix

    folder.mkdir(parents=True, exist_ok=True)
    sft = {
        **{"lora": {"r": RANK, "lora_alpha": ALPHA}, "dtype": "float32", "learning_rate": RATE, "num_train_epochs": 1},
        **{"per_device_train_batch_size": BATCH, "logging_steps": 1, "save_strategy": "no"},
    }
    head = {"name": "throughput", "model": str(WORK / "model"), "recipe": recipe, "output_dir": str(folder / "run")}
    (folder / "experiment.yaml").write_text(yaml.safe_dump({**head, "sft": sft}))
    if not (folder / "run" / "mixture" / "manifest.json").exists():
        mix(load_experiment(folder / "experiment.yaml", check_trl=False))
    return Mixture(folder / "run" / "mixture")


def _write(folder: Path, mixture: Any, chosen: Any, tokenizer: Any, cut: int | None) -> None:
    """Write some rows as every side reads them: our mixture, token ids, and prompts with their completions as text."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tasks: dict[str, list[str]] = {}
    tokens, texts = [], []
    for row in (mixture.row(int(place)) for place in chosen):
        tasks.setdefault(row.task, []).append(json.dumps(row.model_dump(mode="json")) + "\n")
    lines = ["cleaning: {duplicates: false, decontaminate: none}\n", "tasks:\n"]
    for number, (task, found) in enumerate(tasks.items()):
        (folder / f"{number}.jsonl").write_text("".join(found))
        lines.append(f"  {task}: {{kind: domain, source: {{type: files, path: {number}.jsonl}}}}\n")
    (folder / "recipe.yaml").write_text("".join(lines))
    for place in chosen:
        ids = mixture.tokens[mixture.offsets[place] : mixture.offsets[place + 1]].tolist()
        target = int(mixture.targets[place])
        tokens.append({"ids": ids[:cut], "target": target})
        prompt, completion = (tokenizer.decode(part) for part in (ids[:target], ids[target:]))
        texts.append({"instruction": prompt, "input": "", "output": completion})
    (folder / "rows.json").write_text(json.dumps(tokens))
    (folder / "texts.json").write_text(json.dumps(texts))
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "texts.json"}}))
    _mixture(folder, "recipe.yaml")


def _peer_is_there() -> bool:
    packages, stub = PEER / "packages", PEER / "stub" / "torchaudio"
    if not (packages / "llamafactory").is_dir():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(packages), *PINS]
        if subprocess.run(command).returncode:
            print(f"LLaMA-Factory is not in {PEER} and cannot be installed there: measured without it")
            return False
    stub.mkdir(parents=True, exist_ok=True)  # imported for sounds, of which there are none
    (stub / "__init__.py").touch()
    return True


def run(side: str, number: int) -> Any:
    """Run a side in a process of its own; return what it measured."""
    file = WORK / f"{side}-{number}.json"
    file.unlink(missing_ok=True)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(os.cpu_count())}
    environment["TOKENIZERS_PARALLELISM"] = "false"
    if side.startswith("llama-factory"):
        environment["PYTHONPATH"] = os.pathsep.join(str(PEER / name) for name in ("stub", "packages"))
        environment["DISABLE_VERSION_CHECK"] = "1"
    command = [sys.executable, "-m", "tests.benchmarks.sft_throughput", side, str(number), str(file)]
    log = WORK / f"{side}-{number}.log"
    with open(log, "w") as output:
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output).returncode
    if code:
        raise RuntimeError(f"{log}: exit code {code}\n" + log.read_text()[-3000:])
    return json.loads(file.read_text())


def _compare(found: dict[str, list[dict[str, Any]]]) -> None:
    """Say where a side read other tokens than TRL did, or ran with other settings."""
    first = found["trl"][0]
    for side, runs in found.items():
        if runs[0]["settings"] != first["settings"]:
            print(f"NOT ALIKE: {side} ran with {runs[0]['settings']}, TRL with {first['settings']}")
        unlike = sum(abs(a - b) for a, b in zip(runs[0]["epoch"], first["epoch"], strict=True))
        if unlike:
            print(f"{side}: {unlike} of {sum(first['epoch'])} tokens more or fewer than TRL reads")


def _print_throughput(found: dict[str, list[dict[str, Any]]], share: float) -> None:
    rates = {side: [one["rate"] * (1 - one["padding"]) for one in runs] for side, runs in found.items()}
    first = found["trl"][0]
    print(
        f"\n{ROWS} rows of the cocktail up to {LENGTH} tokens, {sum(first['epoch'])} tokens; batches of {BATCH} rows,"
        f" packed {PACKED_BATCH} sequences of {LENGTH}; {', '.join(map(str, first['settings']))};"
        f" {os.cpu_count()} threads, {ROUNDS} rounds in turn; {share:.1%} of the recipe's own batches as they come is"
        " padding\n"
    )
    print("| | tokens/s with padding | padding | useful tokens/s | ratio to TRL as it comes |")
    print("|---|---:|---:|---:|---:|")
    for side, runs in found.items():
        ratios = [mine / other for mine, other in zip(rates[side], rates["trl"], strict=True)]
        print(
            f"| {NAMES[side]} | {_listed('.1f', (one['rate'] for one in runs))} |"
            f" {_listed('.1%', (one['padding'] for one in runs))} | {_listed('.1f', rates[side])} |"
            f" {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}) |"
        )


def _print_shares(found: dict[str, list[dict[str, Any]]], limit: float, flop: "Flop") -> None:
    print(
        f"\n{FULL_ROWS} rows cut to {FULL_LENGTH} tokens, {flop.trained / flop.tokens:.0%} of them trained on; a"
        f" float32 product of 3072 x 3072 makes {limit / 1e9:.0f} GFLOP/s\n"
    )
    print("| full batches | tokens/s | GFLOP/s | share of the matmul limit |")
    print("|---|---:|---:|---:|")
    for side, runs in found.items():
        speeds = [flop(one["weights"]) / flop.tokens * one["rate"] for one in runs]
        print(
            f"| {NAMES[side]} | {_listed('.1f', (one['rate'] for one in runs))} |"
            f" {_listed('.0f', (speed / 1e9 for speed in speeds))} |"
            f" {_listed('.0%', (speed / limit for speed in speeds))} |"
        )


def _listed(form: str, values: Iterable[float]) -> str:
    return ", ".join(format(value, form) for value in values)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure_side(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
