"""Experiment trackers named by ``report_to``: checked before training, and kept inside the run folder.

transformers' callbacks do the reporting, on the first process alone and beside metrics.jsonl, which is always written.
"""

import importlib.util
import os
from pathlib import Path
from typing import Any

from data_recipes.errors import UserError, nearest
from data_recipes.validation import clause

PACKAGES = {
    "azure_ml": "azureml-core",
    "comet_ml": "comet-ml",
    "dagshub": "dagshub mlflow",
    "flyte": "flytekit",
}
"""What to install for a tracker, where that has another name."""


def check_tracker_names(report_to: str | list[str] | None, key: str) -> None:
    """Refuse a tracker that there is none of.

    Args:
        key: of the experiment file, such as ``sft.report_to``.

    Raises:
        UserError: with the nearest name.
    """
    names = [report_to] if isinstance(report_to, str) else report_to or []
    known = [*_callbacks(), *(("none", "all") if len(names) == 1 else ())]
    for name in names:
        if name not in known:
            raise UserError(f"{key}: unknown tracker {name!r}{nearest(name, known)}")


def check_trackers(names: list[str], folder: Path) -> None:
    """Make sure that every tracker can be used.

    Args:
        names: as transformers' arguments hold them.
        folder: of the stage, such as ``RUN/sft``. W&B keeps its files there, unless WANDB_DIR says otherwise; by itself
            it would where the command runs.

    Raises:
        UserError: a tracker is not installed, or not set up.
    """
    key = f"{folder.name}.report_to"
    for name in names:
        try:
            _callbacks()[name]()
        except (RuntimeError, ImportError) as error:
            if importlib.util.find_spec(name) is None:
                raise UserError(f"{key}: {name} is not installed; pip install {PACKAGES.get(name, name)}") from None
            raise UserError(
                f"{key}: {name} cannot be used ({clause(error)[:160]}); mend that or leave it out"
            ) from None
    if "wandb" in names:
        os.environ.setdefault("WANDB_DIR", str(folder))
        _check_wandb(key)
        folder.mkdir(parents=True, exist_ok=True)


def keep_tensorboard_in(trainer: Any, folder: Path) -> None:
    """Let TensorBoard's events go to `folder`, unless TENSORBOARD_LOGGING_DIR says otherwise.

    By itself every session of a run would get a folder of its own.
    """
    from transformers.integrations import TensorBoardCallback

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)


def _callbacks() -> dict[str, type]:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return INTEGRATION_TO_CALLBACK


def _check_wandb(key: str) -> None:
    """Ask W&B, on the first process, whether it would take this run: its own start asks a person, or fails there.

    Raises:
        UserError: there is no API key, or W&B does not answer or refuses it.
    """
    import wandb

    if os.environ.get("RANK", "0") != "0" or wandb.setup().settings.mode in ("offline", "disabled"):
        return
    try:
        known = wandb.login(prompt=False)
    except wandb.errors.Error as error:
        raise UserError(
            f"{key}: W&B cannot be used ({clause(error)[:160]}); mend that, or export WANDB_MODE=offline"
        ) from None
    if not known:
        raise UserError(
            f"{key}: W&B has no API key; export WANDB_API_KEY, or WANDB_MODE=offline, or type 'wandb login'"
        )
