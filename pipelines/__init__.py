"""What runs: critique data, SFT, GRPO and the experiment that orders them. May import data_recipes and eval."""
