"""How to ask a model and how to judge what it said. May import data_recipes."""
