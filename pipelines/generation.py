"""Evaluation by generation while training: at chosen steps the weights so far answer benchmarks, verifiers judge them.

Every process hands in its part of the weights; the first one starts an engine with them in a process of its own
(`generation_worker`) and the others wait, however long it takes. The answers lie in ``sft/generated`` as the harness
keeps them, a row ``step-N`` each; scores in percent go into the metrics as ``eval_generated/TASK``.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from data_recipes.errors import UserError
from data_recipes.files import read_json, read_jsonl, write_json
from data_recipes.progress import say
from eval.engines import Request, with_room
from eval.harness import Benchmark, open_benchmark
from pipelines.alone import Preempted
from pipelines.experiment import Experiment
from pipelines.generation_worker import ADAPTER, JOB, TOKENIZER, WEIGHTS
from pipelines.preemption import SaveOnSigterm
from pipelines.training import GENERATED, GENERATED_SCORES, gathered_weights, save_adapter

SECONDS_BETWEEN_SIGNS = 10.0
"""Far below the time after which a process that waits for another gives up (sft.ddp_timeout, half an hour)."""
OF_THE_FREE_MEMORY = 0.95
"""Share that the engine may take of a GPU's memory that training leaves free."""
OF_A_LAUNCHER = (
    "ACCELERATE_",
    "FSDP_",
    "TORCHELASTIC_",
    "MASTER_",
    "GROUP_",
    "ROLE_",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
)
OF_A_PROCESS = ("RANK", "WORLD_SIZE", "WHETSTONE_NUM_PROCESSES", "WHETSTONE_STRATEGY")


def questions(experiment: Experiment, tokenizer: Any) -> list[Benchmark]:
    """Return the benchmarks asked while training, so that what cannot be asked is told before training.

    Raises:
        UserError: the engine is missing, a benchmark has no items, or a prompt does not fit the engine.
    """
    assert experiment.sft is not None
    settings = experiment.engine
    if settings.type == "vllm" and importlib.util.find_spec("vllm") is None:
        raise UserError("sft.generate_at: vLLM is not installed; type 'make setup', or set engine.type to transformers")
    gpus = torch.cuda.device_count()
    if gpus and settings.tensor_parallel_size > gpus:
        raise UserError(
            f"sft.generate_at: engine.tensor_parallel_size is {settings.tensor_parallel_size}, but training sees {gpus}"
            " GPUs; lower it, or train with more processes"
        )
    given = [{"bits_per_byte": False, **one} for one in experiment.sft.generate_benchmarks]
    benchmarks = [open_benchmark(one, experiment.run_dir / "mixture", "sft.generate_benchmarks") for one in given]
    for benchmark in benchmarks:
        for item in benchmark.items:
            chat = benchmark.settings.chat if item.chat is None else item.chat
            most = item.max_tokens or benchmark.settings.max_tokens
            with_room([Request(item.row.id, item.row.prompt, most, chat=chat)], tokenizer, settings)
    return benchmarks


def metrics_of(results: dict[str, Any]) -> dict[str, float]:
    """Return ``eval_generated/mean`` (of the tasks) and ``eval_generated/TASK``, in percent.

    A task that several benchmarks ask, or one called mean, stands under its benchmark's name too.

    Args:
        results: a results.json of the harness.
    """
    scores = {(label, task): of for label, one in results["benchmarks"].items() for task, of in one["scores"].items()}
    often = Counter(task for _, task in scores)
    means = {
        (f"{label}/{task}" if often[task] > 1 or task == "mean" else task): 100 * sum(of.values()) / len(of)
        for (label, task), of in scores.items()
    }
    if not means:
        return {}
    return {
        f"{GENERATED_SCORES}mean": sum(means.values()) / len(means),
        **{GENERATED_SCORES + task: mean for task, mean in means.items()},
    }


class GenerationAtSteps(TrainerCallback):
    """Asks the weights at chosen steps; `trainer` has to be set. Comes after `SaveOnSigterm` among the callbacks.

    What is asked is logged before the checkpoint of the same step is written, so a resumed run neither repeats nor
    misses it. An engine that crashes is told and training goes on; one that refuses its settings ends it.
    """

    trainer: Any

    def __init__(
        self, experiment: Experiment, benchmarks: list[Benchmark], base: str, preemption: SaveOnSigterm
    ) -> None:
        assert experiment.sft is not None
        self._experiment, self._section, self._benchmarks = experiment, experiment.sft, benchmarks
        self._base, self._preemption = base, preemption
        self._folder = experiment.run_dir / "sft" / GENERATED

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell of steps that never come."""
        late = [str(step) for step in self._section.generate_at if step > state.max_steps]
        if late and state.is_world_process_zero:
            say(f"  sft.generate_at: training ends with step {state.max_steps}, before {', '.join(late)}")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask before the first step, or what an earlier session left unasked at its last (training is one epoch)."""
        if state.global_step not in self._section.generate_at or self._agreed(self._is_logged(state.global_step)):
            return
        if self._ask(state.global_step):
            raise Preempted(f"preempted while step {state.global_step} was asked; run the same command again to go on")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Ask after this step, if it is one of the chosen ones and the run is not about to leave."""
        if state.global_step not in self._section.generate_at or self._preemption.preempted:
            return
        losses_are_due = control.should_log
        stopped = self._ask(state.global_step)
        control.should_log = losses_are_due  # (logging the scores has taken it back)
        if stopped:
            self._preemption.preempted = True
            control.should_save = control.should_training_stop = True

    def _is_logged(self, step: int) -> bool:
        path = self._folder.parent / "metrics.jsonl"
        if not self.trainer.is_world_process_zero() or not path.exists():
            return False
        lines = read_jsonl(path, torn_line_ok=True)
        return any(line.get("step") == step and any(key.startswith(GENERATED_SCORES) for key in line) for line in lines)

    def _agreed(self, value: Any) -> Any:
        """Return the first process's value on all of them."""
        shared = [value]
        if self.trainer.accelerator.num_processes > 1:
            dist.broadcast_object_list(shared)
        return shared[0]

    def _ask(self, step: int) -> bool:
        """Ask, log the scores, and return whether SIGTERM put an end to it.

        Raises:
            UserError: the engine refused.
        """
        start = time.monotonic()
        share = self._free_memory()
        weights = gathered_weights(self.trainer)
        worker = self._started(step, weights, share) if self.trainer.is_world_process_zero() else None
        del weights
        outcome = None
        while outcome is None:  # a sign of life for those that wait, whose patience has an end
            outcome = self._agreed(worker.outcome() if worker else None)
        if "refused" in outcome:
            raise UserError(f"sft.generate_at, step {step}: {outcome['refused']}")
        if "failed" in outcome and worker:
            say(f"  step {step}: the engine failed ({outcome['failed']}); training goes on without these scores")
        if metrics := outcome.get("metrics"):
            self.trainer.log(dict(metrics))
            if worker:
                seconds, mean = time.monotonic() - start, metrics[f"{GENERATED_SCORES}mean"]
                say(f"  step {step}: {mean:.1f} % of generated answers are right, mean of tasks ({seconds:.0f} s)")
        elif worker and "metrics" in outcome:
            say(f"  step {step}: nothing to judge the answers by; no question names a verifier")
        return "stopped" in outcome

    def _free_memory(self) -> float:
        """Return the share of a GPU's memory that is free, where least is; 1 without GPUs."""
        if self.trainer.args.device.type != "cuda":
            return 1.0
        torch.cuda.empty_cache()  # what the allocator keeps without needing it
        free, total = torch.cuda.mem_get_info()
        share = torch.tensor(free / total, device=self.trainer.args.device)
        if self.trainer.accelerator.num_processes > 1:
            dist.all_reduce(share, op=dist.ReduceOp.MIN)
        return share.item()

    def _started(self, step: int, weights: dict[str, torch.Tensor], share: float) -> "_Worker":
        from peft import PeftModel
        from safetensors.torch import save_file

        job = self._folder / ".job"
        job.mkdir(parents=True)
        trained = self.trainer.accelerator.unwrap_model(self.trainer.model)
        if isinstance(trained, PeftModel):
            save_adapter(trained, weights, job / ADAPTER, self._base)
        else:
            save_file({name: tensor.contiguous() for name, tensor in weights.items()}, job / WEIGHTS)
        self.trainer.processing_class.save_pretrained(job / TOKENIZER)
        engine = self._experiment.engine
        limits: dict[str, Any] = {
            "gpu_memory_utilization": min(engine.gpu_memory_utilization, OF_THE_FREE_MEMORY * share)
        }
        if gpus := torch.cuda.device_count():  # those of this process; later stages may see more
            limits["data_parallel_size"] = min(engine.data_parallel_size, gpus // engine.tensor_parallel_size)
        description = {
            "parent": os.getpid(),
            "base": self._base,
            "dtype": self._section.dtype,
            "engine": engine.model_copy(update=limits).model_dump(),
            "benchmarks": [one.settings.model_dump() for one in self._benchmarks],
            "mixture": str(self._experiment.run_dir / "mixture"),
            "answers": str(self._folder),
            "row": f"step-{step}",
            "model": f"{{run}}/sft, step {step}",
            "seed": self._experiment.seed,
        }
        write_json(job / JOB, description)
        total = sum((i.num_samples or b.settings.num_samples) for b in self._benchmarks for i in b.items)
        return _Worker(job, self._folder / f"step-{step}", total)


class _Worker:
    """A running `generation_worker`; SIGTERM ends it."""

    def __init__(self, job: Path, answers: Path, total: int) -> None:
        self._job, self._answers, self._total, self._told = job, answers, total, 0
        self._terminated = False
        answers.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "pipelines.generation_worker", str(job)]
        with open(answers / "engine.log", "w") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment_of_one_process())
        self._before = None
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._end)

    def _end(self, *given: Any) -> None:
        self._terminated = True
        self._process.terminate()
        if callable(self._before):
            self._before(*given)

    def outcome(self) -> dict[str, Any] | None:
        """Wait a while and return how it ended, or None if it goes on.

        Returns:
            One of ``metrics``; ``refused`` and ``failed``, with why; ``stopped``.
        """
        try:
            code = self._process.wait(SECONDS_BETWEEN_SIGNS)
        except subprocess.TimeoutExpired:
            self._tell()
            return None
        except BaseException:  # ctrl-C, say
            self._process.kill()
            raise
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
        shutil.rmtree(self._job, ignore_errors=True)
        if self._terminated or code == -signal.SIGTERM:  # sent to the process group, perhaps not yet seen here
            return {"stopped": True}
        log = self._answers / "engine.log"
        if code == 0:
            return {"metrics": metrics_of(read_json(self._answers / "results.json"))}
        said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("whetstone: ")]
        if code == 2 and said:
            return {"refused": said[-1].removeprefix("whetstone: ")}
        return {"failed": f"exit code {code}, see {os.path.relpath(log)}"}

    def _tell(self) -> None:
        path = self._answers / "samples.jsonl"
        done = path.read_bytes().count(b"\n") if path.exists() else 0
        if self._told < done < self._total:
            self._told = done
            say(f"  {self._answers.name}: {done}/{self._total} answers generated")


def environment_of_one_process() -> dict[str, str]:
    """Return this process's environment without what makes it one of several, and with the threads of them all."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(OF_A_LAUNCHER) and k not in OF_A_PROCESS}
    if threads := os.environ.get("OMP_NUM_THREADS"):
        kept["OMP_NUM_THREADS"] = str(int(threads) * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    return kept
