"""TRL's GRPOTrainer for many tasks: judged rollouts that are kept, advantages by task, metrics by task, OAPL."""

from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import Sampler
from trl import GRPOTrainer

from data_recipes.files import fingerprint
from data_recipes.row import Row
from eval.judges import Judged
from eval.verifiers import Verdict
from pipelines.checkpoints import PortableCheckpoints, step_of
from pipelines.experiment import OAPLSection
from pipelines.rl.advantages import group_advantages, undecided
from pipelines.rl.critique_reward import PARTS, CritiqueReward
from pipelines.rl.hardness import Hardness
from pipelines.rl.oapl import optimal_value, squared_residual
from pipelines.rl.prompts import PromptOrder
from pipelines.rl.rollouts import Rollout, Rollouts, numbered
from pipelines.rl.task_metrics import TaskMetrics

OVER_SEQUENCES = ("grpo", "sapo", "dr_grpo", "luspo")
"""TRL's losses that are a mean over sequences; those left out must not be counted in it."""
METRICS = (
    *("reward", "length", "advantage", "zero_variance", "entropy", "kl", "unparsed", "failed", "says_incorrect"),
    *(*PARTS, "alpha"),
)


class MultiTaskGRPOTrainer(PortableCheckpoints, GRPOTrainer):
    """GRPOTrainer whose samples are judged by their rows' verifiers.

    A sample without a reward takes no part: its tokens, its place in the group and its share of every mean are taken
    out, as if it had never been in the batch. Tasks' rewards are never normalised together.

    Args:
        rows: of the data set's ``index`` column.
        order: of the prompts, by their place in `rows`.
        judge: from (row, completion) pairs to what they are worth.
        rewards_scaled: by task, what its rewards are multiplied by.
        oapl: regress on OAPL's target instead of TRL's losses.
        critique_reward: what critiques are worth beyond their verdict.
        hardness: GRPO-S's, which advantages are multiplied by.
    """

    def __init__(
        self,
        *args: Any,
        rows: list[Row],
        judge: Callable[[list[tuple[Row, str]]], list[Judged]],
        rollouts: Rollouts,
        order: PromptOrder,
        rewards_scaled: dict[str, float],
        oapl: OAPLSection | None,
        critique_reward: CritiqueReward | None = None,
        hardness: Hardness | None = None,
        run_id: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, reward_funcs=[self.verifiers], **kwargs)
        self.run_id = run_id
        self._micro_batches = self.args.steps_per_generation * self.num_iterations  # between two generations
        self._rows, self._judge, self._rollouts, self._oapl = rows, judge, rollouts, oapl
        self._order, self._scale_of = order, rewards_scaled
        self._critique_reward, self._hardness = critique_reward, hardness
        tasks = list(dict.fromkeys(row.task for row in rows))
        self._task_numbers = {task: number for number, task in enumerate(tasks)}
        self._by_task = TaskMetrics(tasks, METRICS)
        self._stored_old: list[list[float] | None] | None = None

    # --- generating -----------------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Any = None) -> Sampler:
        return self._order

    @property
    def _generation(self) -> int:
        """The number of the present generation, counted from 0."""
        return self._step // self._micro_batches

    @property
    def _first_step(self) -> int:
        """The first optimiser step that learns from the present generation, counted from 1."""
        return self._generation * self._micro_batches // self.args.gradient_accumulation_steps + 1

    def _seed(self, purpose: str) -> None:
        key = [self.args.seed, self._generation, self.args.process_index, purpose]
        torch.manual_seed(int(fingerprint(key)[:8], 16))

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        """Draw from generators of this generation's own, so that one that is taken from disk changes nothing else."""
        devices = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            return super()._prepare_inputs(generation_batch)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        self._indices = [one["index"] for one in inputs]
        self._asked = [self._rows[index] for index in self._indices]
        places = numbered(gather_object([row.id for row in self._asked]))
        here = slice(self.accelerator.process_index * len(inputs), (self.accelerator.process_index + 1) * len(inputs))
        self._places = places[here]
        reused, own = self._rollouts.find(self._generation, self._places)
        if not all(gather_object([reused is not None])):
            reused = None
        self._reused, self._own = reused, own
        self._stored_old = [one.policy_logprobs for one in reused] if reused and own else None
        self._seed("generate")
        output = super()._generate_and_score_completions(inputs)
        self._seed("shuffle")
        if reused and not own and (self._oapl or "importance_sampling_ratio" not in output):
            stored = [one.policy_logprobs or one.logprobs for one in reused]
            if None not in stored:
                output["old_per_token_logps"] = self._padded(stored, output["completion_ids"].size(1))
        output |= self._learnt_from(output)
        if reused is None or not own:
            self._rollouts.write(gather_object(self._as_rollouts(output)))
        return output

    def _generate_single_turn(self, prompt_ids: list[list[int]], *args: Any, **kwargs: Any) -> tuple[list, list | None]:
        if self._reused is None:
            self._tokens, self._logprobs = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        else:
            self._tokens = [one.tokens for one in self._reused]
            self._logprobs = [one.logprobs for one in self._reused]
            if None in self._logprobs:
                self._logprobs = None
        return self._tokens, self._logprobs

    def _padded(self, logprobs: list[list[float]], width: int) -> Tensor:
        padded = torch.zeros(len(logprobs), width, device=self.accelerator.device)
        for row, of_row in enumerate(logprobs):
            padded[row, : len(of_row)] = torch.tensor(of_row, device=padded.device)
        return padded

    def _as_rollouts(self, output: dict[str, Any]) -> list[Rollout]:
        policy = output.get("old_per_token_logps")
        return [
            Rollout(
                generation=self._generation,
                step=self._first_step,
                task=row.task,
                id=row.id,
                sample=sample,
                completion=text,
                answer=judged.verdict.answer,
                reward=judged.verdict.score,
                problem=judged.problem,
                tokens=list(tokens),
                logprobs=None if self._logprobs is None else list(self._logprobs[number]),
                policy_logprobs=None if policy is None else policy[number, : len(tokens)].tolist(),
                parts=judged.parts,
                revision=judged.revision,
            )
            for number, (row, (_, sample), (text, judged), tokens) in enumerate(
                zip(self._asked, self._places, self._judged, self._tokens, strict=True)
            )
        ]

    # --- judging --------------------------------------------------------------------------------------------------

    def verifiers(self, completions: list, **_: Any) -> list[float | None]:
        """Return the rewards of this process's completions, scaled: the reward function, by the name that is logged."""
        texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
        if self._reused is not None and self._own:
            judged = [
                Judged(Verdict(one.reward, one.answer), one.problem, one.parts, one.revision) for one in self._reused
            ]
            if self._critique_reward:
                for row, text, one in zip(self._asked, texts, judged, strict=True):
                    self._critique_reward.remember(row, text, one.revision)
        else:
            pairs = list(zip(self._asked, texts, strict=True))
            judged = self._judge(pairs)
            if self._critique_reward:
                judged = self._critique_reward(pairs, judged, self._first_step)
        self._judged = list(zip(texts, judged, strict=True))
        scores = [one.verdict.score for one in judged]
        rewards = [
            None if score is None else score * self._scale_of.get(row.task, 1.0)
            for row, score in zip(self._asked, scores, strict=True)
        ]
        self._scores, self._rewards = (
            torch.tensor(
                [nan if one is None else one for one in of], dtype=torch.float32, device=self.accelerator.device
            )
            for of in (scores, rewards)
        )
        return rewards

    def _learnt_from(self, output: dict[str, Any]) -> dict[str, Any]:
        """Return what the loss needs beside TRL's: advantages by task, and masks without what takes no part."""
        device, size = self.accelerator.device, len(self._asked)
        task_ids = torch.tensor([self._task_numbers[row.task] for row in self._asked], device=device)
        rewards, all_tasks = self.accelerator.gather(self._rewards), self.accelerator.gather(task_ids)
        here = slice(self.accelerator.process_index * size, (self.accelerator.process_index + 1) * size)
        group = self.num_generations
        advantages = group_advantages(rewards, group, all_tasks, self.scale_rewards)
        if self._hardness:
            measured = self._hardness.measure(self._asked, [text for text, _ in self._judged], self._scores)
            distances, gaps = (self.accelerator.gather(one) for one in measured)
            alpha = self._hardness.alpha(distances, gaps, all_tasks)
            self._by_task.add("alpha", task_ids, alpha[here])
            advantages = advantages * alpha
        kept = ~rewards.isnan()
        of_prompts = rewards.reshape(-1, group)
        teaches = undecided(of_prompts)
        more = {}
        if self._oapl:
            kept &= teaches.repeat_interleave(group)
            values = optimal_value(of_prompts, self._oapl.beta1).repeat_interleave(group)
            more = {"rewards": rewards[here].nan_to_num(0.0), "values": values[here].nan_to_num(0.0)}
        mask = output["completion_mask"] * kept[here, None]
        alike = ~teaches.repeat_interleave(group)[here]
        self._count(task_ids, output["completion_mask"].sum(1), advantages[here], alike)
        asked = torch.tensor(self._indices, device=device)
        asked = self.accelerator.gather(asked)[::group].tolist()
        nothing = [index for index, found in zip(asked, teaches.tolist(), strict=True) if not found]
        self._order.observe(self._generation, nothing)
        return {
            **more,
            "task_ids": task_ids,
            "advantages": advantages[here],
            "kept": kept[here],
            "completion_mask": mask,
            "num_items_in_batch": self.accelerator.gather(mask.sum()).sum(),
            # a mean over all sequences, times this, is one over those that take part
            "over_kept": torch.tensor(len(kept) / max(int(kept.sum()), 1), device=device),
        }

    def _count(self, task_ids: Tensor, lengths: Tensor, advantages: Tensor, alike: Tensor) -> None:
        problems = torch.tensor([one.problem is not None for _, one in self._judged], device=task_ids.device)
        found = ~self._scores.isnan()
        self._by_task.add("reward", task_ids, self._scores)
        self._by_task.add("length", task_ids, lengths)
        self._by_task.add("advantage", task_ids[found], advantages[found].abs())
        self._by_task.add("zero_variance", task_ids, alike)
        self._by_task.add("failed", task_ids, problems)
        self._by_task.add("unparsed", task_ids, ~found & ~problems)
        if any("verdict" in row.verifiers for row in self._asked):  # a critic that calls everything wrong shows here
            said = [
                float(one.verdict.answer == "incorrect") if "verdict" in row.verifiers and one.verdict.answer else nan
                for row, (_, one) in zip(self._asked, self._judged, strict=True)
            ]
            self._by_task.add("says_incorrect", task_ids, torch.tensor(said, device=task_ids.device))
        for part in PARTS:
            of_part = [one.parts.get(part, nan) for _, one in self._judged]
            self._by_task.add(part, task_ids, torch.tensor(of_part, device=task_ids.device))

    # --- learning -------------------------------------------------------------------------------------------------

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Tensor, attention_mask: Tensor, logits_to_keep: int, **kwargs: Any
    ) -> tuple:
        stored, self._stored_old = self._stored_old, None
        if stored and None not in stored:  # what TRL asks for first: the weights that wrote the rollouts are gone
            return self._padded(stored, logits_to_keep), None, None
        found = super()._get_per_token_logps_and_entropies(model, input_ids, attention_mask, logits_to_keep, **kwargs)
        if kwargs.get("compute_entropy"):
            self._scored = found
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self._oapl:
            loss = self._regression(model, inputs)
        else:
            loss = super()._compute_loss(model, inputs)
            if self.loss_type in OVER_SEQUENCES:
                loss = loss * inputs["over_kept"]
        logps, entropies, _ = self._scored
        mask, task_ids = inputs["completion_mask"], inputs["task_ids"]
        tokens = mask.sum(1)
        self._by_task.add("entropy", task_ids, (entropies * mask).sum(1), tokens)
        if "ref_per_token_logps" in inputs:
            gap = inputs["ref_per_token_logps"] - logps.detach()
            self._by_task.add("kl", task_ids, ((gap.exp() - gap - 1) * mask).sum(1), tokens)
        return loss

    def _regression(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        """Return this micro-batch's part of OAPL's loss, a mean over the samples of undecided prompts."""
        mask = inputs["completion_mask"]
        ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        attention = torch.cat([inputs["prompt_mask"], torch.ones_like(mask)], dim=1)
        logps, entropies, _ = self._get_per_token_logps_and_entropies(
            model, ids, attention, mask.size(1), compute_entropy=True
        )
        old = inputs.get("old_per_token_logps")
        reference = logps.detach() if old is None else old
        residuals = squared_residual(
            (logps * mask).sum(1), (reference * mask).sum(1), inputs["rewards"], inputs["values"], self._oapl.beta2
        )
        self._metrics["train"]["entropy"].append(((entropies * mask).sum() / mask.sum().clamp(min=1)).item())
        loss = (residuals * inputs["kept"]).mean() * inputs["over_kept"]
        return loss / self.current_gradient_accumulation_steps

    # --- reporting and resuming -----------------------------------------------------------------------------------

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log the trainer's metrics and the tasks'."""
        if "loss" in logs:
            logs.update(self._by_task.report(self.sum_over_processes))
            aside = self._order.set_aside((self._step - 1) // self._micro_batches)
            logs.update({f"set_aside/{t}": share for t, share in zip(self._by_task.tasks, aside, strict=True) if share})
        super().log(logs, *args, **kwargs)

    def own_state(self) -> dict[str, Any]:
        """Return the figures that were not logged yet, and which prompts taught nothing."""
        return {
            "by_task": self._by_task.state(self.sum_over_processes),
            "metrics": dict(self._metrics["train"]),
            "outcomes": self._order.state(),
        }

    def set_own_state(self, state: dict[str, Any]) -> None:
        """Go on from `own_state`."""
        self._by_task.restore(state["by_task"], self.is_world_process_zero())
        self._metrics["train"].update(state["metrics"])
        self._order.restore(state["outcomes"])

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        prepared = super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
        if resume_from_checkpoint:
            self._step = step_of(Path(resume_from_checkpoint)) * self.args.gradient_accumulation_steps
        return prepared
