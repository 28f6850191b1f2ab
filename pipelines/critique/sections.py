"""The experiment file's section for agents that criticise together."""

from pydantic import Field, model_validator

from data_recipes.errors import nearest
from eval.engines import EngineSettings
from pipelines.critique.units import AGGREGATE
from pipelines.sections import ModelSection, Section


class AgentSection(ModelSection):
    """An agent: a model, what it is told it is, and where it runs."""

    system: str | None = None
    """A system turn before whatever it is asked."""
    engine: EngineSettings | None = None
    """Where it runs, such as ``{type: openai, base_url: ...}``; absent: the experiment's engine. Servers are asked at
    the same time, engines in this process one after another."""
    temperature: float = Field(0.7, ge=0)
    """Sampling temperature."""
    dollars_per_million_tokens: tuple[float, float] = (0.0, 0.0)
    """Price of a million prompt tokens and of a million completion tokens, for the budget."""


class BudgetSection(Section):
    """What the agents may use up over all sessions; a limit that is reached ends the stage, and answers are kept."""

    tokens: int | None = Field(None, ge=1)
    """Prompt and completion tokens together."""
    dollars: float | None = Field(None, gt=0)
    """By the agents' prices."""
    minutes: float | None = Field(None, gt=0)
    """Time spent asking."""


class MultiCritiqueSection(Section):
    """Critiques by several agents, after MultiCritique (2410.15287): critics write units under a JSON schema, a
    meta-critic judges each unit, the good ones become one critique to train on, and pairs of critiques are kept where
    revisions bear them out."""

    tasks: list[str] = Field(min_length=1)
    """Tasks of the recipe whose rows hold a response to criticise (``meta.response``), such as those of the critique
    recipe or of the critique stage."""
    num_items: int = Field(50, ge=1)
    """Responses, a task."""
    agents: dict[str, AgentSection] = Field(min_length=1)
    """By name."""
    informant: str | None = None
    """The agent that writes task, criteria and reference of every question; absent: the first."""
    critics: list[str] = []
    """The agents that criticise; empty: all."""
    judge: str | None = None
    """The meta-critic; absent: the first agent."""
    aggregator: str | None = None
    """The agent that writes the final critique; absent: the first."""
    revisers: list[str] = []
    """The agents that revise responses; empty: all."""
    revisions: int = Field(8, ge=1)
    """Revisions of every reviser after each of a pair's critiques."""
    revision_tokens: int = Field(256, ge=1)
    """Longest revision, in tokens."""
    max_units: int = Field(4, ge=1)
    """Most units of one critique."""
    max_characters: int = Field(400, ge=20)
    """Longest text in a unit, a judgement or a task, in characters; a reference may have twice as many."""
    max_tokens: int = Field(1024, ge=16)
    """Longest JSON, in tokens; a try that was cut off is given as many more."""
    retries: int = Field(2, ge=0)
    """More tries, with other seeds, where an answer isn't valid under its schema."""
    reward_model: str | None = None
    """Folder of a reward model for revisions of responses whose question no verifier can judge; absent: their pairs
    are left out."""
    budget: BudgetSection = BudgetSection()
    """Limits; they may be raised for the same run."""

    @model_validator(mode="after")
    def _agents_are_there(self) -> "MultiCritiqueSection":
        if AGGREGATE in self.agents:
            raise ValueError(f"agents: {AGGREGATE!r} is what all agents' work is called; take another name")
        for key in ("informant", "judge", "aggregator", "critics", "revisers"):
            given = getattr(self, key)
            for name in [given] if isinstance(given, str) else given or []:
                if name not in self.agents:
                    raise ValueError(f"{key}: there is no agent {name!r}{nearest(name, self.agents)}")
        return self
