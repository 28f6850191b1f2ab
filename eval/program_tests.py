"""The unit tests that a published record brings, as the verifier `code` takes them."""

from data_recipes.errors import UserError
from eval.sandbox import SandboxError, names_used


def python_tests(tests: str, where: str) -> str:
    """Return a record's tests, with the import that those of MBPP rely on.

    Raises:
        UserError: they are no Python.
    """
    try:
        names_used(tests)
    except SandboxError as error:
        raise UserError(f"{where}: {error}; fetch the set again") from None
    return f"import math\n{tests}"
