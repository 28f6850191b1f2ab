"""Multi-task reinforcement learning: judged rollouts, advantages by task, objectives, metrics by task."""
