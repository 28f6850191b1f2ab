"""The two halves of an evaluation set of which nothing but evaluation items exists.

A fixed hash of the question puts every item in a half to train on or in one to hold out. It looks at the question's
words alone, so every set that contains a question, however it is punctuated, has it in the same half.
"""

import hashlib
import re
from typing import Literal

from data_recipes.row import normalise


def half_of(question: str) -> Literal["train", "heldout"]:
    """Return the half that `question` belongs to, in whatever set it occurs."""
    text = normalise(question)
    words = " ".join(re.findall(r"\w+", text)) or text  # brackets alone are a question too
    return "train" if hashlib.sha256(words.encode()).digest()[0] % 2 else "heldout"
