"""Learning a scalar reward from preference rows: losses, pairs, the trainer, and what is reported of it."""
