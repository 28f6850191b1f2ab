"""SIGTERM, as Slurm sends it before it takes a node away: save at the next step boundary, leave, be started again."""

import signal
import threading
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback


class SaveOnSigterm(TrainerCallback):
    """Asks for a checkpoint and the end of training once any process was sent SIGTERM.

    Processes agree on the step: one that has not been told yet must not go on to a collective the others have left.
    """

    def __init__(self) -> None:
        self.preempted = False
        self._told = False  # no threading.Event: a second signal within its lock would wait for the first for ever
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._tell)

    def _tell(self, *_: Any) -> None:
        self._told = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Look whether anybody was told."""
        told = self._told
        if args.world_size > 1:
            flag = torch.tensor(int(told), device=args.device)
            dist.all_reduce(flag, op=dist.ReduceOp.MAX)
            told = bool(flag.item())
        if told and state.global_step < state.max_steps:
            self.preempted = True
            control.should_save = control.should_training_stop = True
