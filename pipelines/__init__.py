"""What runs: critique data, SFT, reward models, GRPO, the experiment that orders them. Imports data_recipes, eval."""
