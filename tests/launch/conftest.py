"""The command line in this process."""

import subprocess

import pytest

from launch.cli import main


@pytest.fixture
def here(capsys):
    """Run a command in this process, which has the libraries loaded; returns what a process of its own would."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        code = 0
        try:
            main(list(arguments))
        except SystemExit as stopped:
            code = stopped.code
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, said.out, said.err)

    return run
