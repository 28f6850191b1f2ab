"""Which preference pairs should people label, when a model has labelled all? (Hybrid Preferences, arXiv 2410.19133)

``pairs`` holds the rows, ``features`` tags them, ``proxy`` is the model whose performance is predicted, ``gain``
predicts it, ``label_studio`` carries the chosen pairs to people and back, ``choose`` and ``simulate`` are what the
commands run.
"""
