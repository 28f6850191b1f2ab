"""Parts of the experiment file's grpo section: what a critique is rewarded for, and GRPO-S."""

from pydantic import Field

from eval.engines import EngineSettings
from pipelines.sections import Section


class ReviserSection(Section):
    """The frozen model that writes a corrected response from a question, a response and its critique, at temperature 0.
    It runs in a process of its own, one beside each training process."""

    model: str | None = None
    """A hub id or a folder, or what a server calls it; absent: the weights that GRPO starts from."""
    adapter: str | None = None
    """Folder of a LoRA adapter (PEFT) on top of the model."""
    engine: EngineSettings | None = None
    """How it generates; absent: as the experiment's engine does, on one GPU and with at most 0.3 of its memory."""
    max_tokens: int = Field(128, ge=1)
    """Longest revision, in tokens."""


class CritiqueRewardSection(Section):
    """The reward of a critique, in two stages (Critique-RL, 2510.24320): first the verdict alone, then the weighted
    mean of verdict, location and revision, of those that its row can be judged by. The paper's weights were not
    recovered."""

    verdict_steps: int = Field(0, ge=0)
    """Optimiser steps of the first stage; a generation belongs to the stage of the first step that learns from it."""
    verdict_weight: float = Field(0.5, gt=0)
    """Second stage: weight of 1 for a right verdict, which keeps the critic telling right from wrong."""
    location_weight: float = Field(0.5, ge=0)
    """Second stage: weight of 1 for the right place of the first mistake, for rows that know one
    (``meta.first_wrong_step``)."""
    revision_weight: float = Field(1.0, ge=0)
    """Second stage: weight of what the verifiers of the question give the reviser's response, for rows that know the
    right answer (those of the critique stage do); 0: nothing is revised."""
    reviser: ReviserSection = ReviserSection()
    """Who revises."""


class GRPOSSection(Section):
    """GRPO-S (DR-IRL, 2503.18991): advantages times data hardness and model responsiveness, each within a task."""

    tau: float = Field(1.0, gt=0)
    """Gaps between the demonstration's reward and a sample's whose squared distance from their task's mean exceeds this
    are left out of the responsiveness."""
    encoder: str | None = None
    """A transformers model, hub id or folder, whose mean hidden states are the sentences' embeddings; absent: the
    weights that GRPO starts from."""
