"""GRPO-S's weights of advantages, from demonstrations and the policy's samples (DR-IRL, arXiv 2503.18991).

    W_i = mean over k of max over l of cos(e(S_k), e(S~_l))      sub-sentences of the demonstration and of the sample
    delta_i = 1 - W_i,  R_i = reward of the demonstration - reward of the sample
    alpha_i = data_hardness(delta)_i * model_responsiveness(R)

The paper's versions contradict each other. Its text calls data with a large first factor easy, although a large delta
is an unlike answer: ours weighs unlike answers more, as the formula does. One version embeds with CLIP, the other with
a text encoder; ours are the mean last hidden states of a transformers model. Over what a mean "over j" runs is not
said: ours runs over the samples of the same task in the generation, so that one task's distances and rewards touch no
other's weights and a task's first factor is about 1 on average. tau was not recovered.
"""

import re
from math import nan

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

from data_recipes.row import Row
from eval.models import resolve_model
from pipelines.experiment import GRPOSection
from pipelines.rl.advantages import data_hardness, model_responsiveness
from pipelines.rl.critique_reward import Judge

SUB_SENTENCES = re.compile(r"(?<=[.,;:!?])\s+|\s*\n\s*")


def sub_sentences(text: str) -> list[str]:
    """Return the pieces between marks that are followed by a space, and lines; "1,200.5" stays whole."""
    return [piece for piece in SUB_SENTENCES.split(text.strip()) if piece]


def distance(demonstration: Tensor, sample: Tensor) -> float:
    """Return delta = 1 - W of unit embeddings, (k, size) and (l, size); an empty sample is like nothing: 1."""
    if not len(sample):
        return 1.0
    return 1.0 - (demonstration @ sample.T).amax(1).mean().item()


def alpha(distances: Tensor, gaps: Tensor, task_ids: Tensor, tau: float) -> Tensor:
    """Return (n,) weights, 1 where there is no demonstration or no reward.

    Args:
        distances, gaps: (n,) delta_i and R_i, both NaN there.
        task_ids: (n,) whole numbers.
    """
    weights = torch.ones_like(distances)
    known = ~(distances.isnan() | gaps.isnan())
    for task in task_ids[known].unique():
        of_task = known & (task_ids == task)
        weights[of_task] = data_hardness(distances[of_task]) * model_responsiveness(gaps[of_task], tau)
    return weights


class Hardness:
    """Measures samples against their rows' demonstrations.

    Args:
        model: folder or hub id of the encoder.
        judge: what gives the demonstrations their rewards, once a row.
    """

    def __init__(self, model: str, tau: float, judge: Judge, device: torch.device) -> None:
        self._tokenizer = AutoTokenizer.from_pretrained(model)
        self._encoder = AutoModel.from_pretrained(model, dtype=torch.float32).to(device).eval()
        self._tau, self._judge, self._device = tau, judge, device
        self._shown: dict[str, tuple[Tensor, float]] = {}
        """Row -> its demonstration's embeddings and reward, NaN where it has none."""

    def measure(self, rows: list[Row], texts: list[str], scores: Tensor) -> tuple[Tensor, Tensor]:
        """Return delta and R of each sample, (n,) and (n,); NaN where it has no reward or its row no demonstration.

        Args:
            scores: (n,) the samples' rewards before any scaling; NaN: none.
        """
        new = {row.id: row for row in rows if row.id not in self._shown}
        shown = [row for row in new.values() if row.target and sub_sentences(row.target)]
        self._shown |= {row_id: (torch.empty(0), nan) for row_id in new}
        judged = self._judge([(row, row.target) for row in shown]) if shown else []
        for row, one in zip(shown, judged, strict=True):
            if one.verdict.score is not None:
                self._shown[row.id] = self._embeddings(row.target), one.verdict.score
        distances = torch.full_like(scores, nan)
        gaps = torch.full_like(scores, nan)
        for number, (row, text) in enumerate(zip(rows, texts, strict=True)):
            demonstration, reward = self._shown[row.id]
            if len(demonstration) and not scores[number].isnan():
                distances[number] = distance(demonstration, self._embeddings(text))
                gaps[number] = reward - scores[number]
        return distances, gaps

    def alpha(self, distances: Tensor, gaps: Tensor, task_ids: Tensor) -> Tensor:
        """Return `alpha` at the section's tau."""
        return alpha(distances, gaps, task_ids, self._tau)

    @torch.no_grad()
    def _embeddings(self, text: str) -> Tensor:
        """Return (sub-sentences, size) unit vectors, each from a pass of its own, so none depends on the others."""
        pieces = [ids for one in sub_sentences(text) if (ids := self._tokenizer(one).input_ids)]
        found = [self._encoder(torch.tensor([ids], device=self._device)).last_hidden_state[0].mean(0) for ids in pieces]
        return torch.nn.functional.normalize(torch.stack(found), dim=-1) if found else torch.empty(0)


def open_hardness(section: GRPOSection, base: str, judge: Judge, device: torch.device) -> Hardness | None:
    """Return GRPO-S's measure, or None where advantages stay as they are.

    Args:
        base: the weights that GRPO starts from.
    """
    if section.grpo_s is None:
        return None
    return Hardness(resolve_model(section.grpo_s.encoder or base), section.grpo_s.tau, judge, device)
