import errno

import pytest

from data_recipes.errors import UserError
from pipelines.alone import guarded


def write_to_a_full_disk():
    with open("/dev/full", "w") as file:
        file.write("x" * 10_000)


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (write_to_a_full_disk, "the disk is full; free some space"),
        (
            lambda: (_ for _ in ()).throw(RuntimeError("[enforce fail] PytorchStreamWriter failed writing file")),
            "disk is full",
        ),
        (lambda: (_ for _ in ()).throw(OSError(errno.EADDRINUSE, "in use")), "the port is in use"),
        (lambda: (_ for _ in ()).throw(UserError("x.yaml: wrong")), "x.yaml: wrong"),
    ],
)
def test_what_the_user_can_mend_ends_in_one_sentence_and_exit_code_2(action, words, capsys):
    with pytest.raises(SystemExit) as caught:
        guarded(action)
    said = capsys.readouterr().err
    assert caught.value.code == 2 and said.startswith("whetstone: ") and said.count("\n") == 1 and words in said


def test_a_bug_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        guarded(lambda: 1 / 0)
