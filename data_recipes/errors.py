"""The one exception a user's mistake raises, and the words that go with it."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Bad input, said in one sentence that names the file, the place and the mend.

    The command line prints the sentence and exits with code 2; a traceback is kept for our own bugs.
    """


def nearest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the known word nearest to `word`, or the short list of known words."""
    names = sorted(str(name) for name in known)
    close = difflib.get_close_matches(str(word), names, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]!r}?)"
    return f" (known: {', '.join(names)})" if 0 < len(names) <= 20 else ""
