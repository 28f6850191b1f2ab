"""What a model learns from: rows, sources, mixtures. Imports nothing of ours and never runs a model."""
