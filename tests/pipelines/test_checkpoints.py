"""Checkpoints that are damaged, foreign or cut off by a full disk; what is in them; a run goes on bit-equal."""

import errno
import json
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors import safe_open

from data_recipes.errors import UserError
from pipelines.alone import guarded
from pipelines.checkpoints import COMPLETE, newest_checkpoint
from tests.conftest import write_experiment
from tests.pipelines.sft_runs import logged, same_weights, train_here

SECTIONS = """
sft:
  lora: {r: 64, lora_dropout: 0.2}
  dtype: float32
  bf16: false
  learning_rate: 5e-2
  balance: famo
  logging_steps: 2
  batch_size: 4
  max_steps: 6
  save_steps: 3
  save_total_limit: 9
  max_length: 128
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_model) -> tuple[Path, Path]:
    """An experiment file and its run of six steps, undisturbed, with checkpoints at 3 and 6."""
    from pipelines.experiment import load_experiment
    from pipelines.mix import mix

    folder = tmp_path_factory.mktemp("trained")
    file = write_experiment(folder, SECTIONS, model=tiny_model)
    mix(load_experiment(file, check_trl=False))
    train_here(file)
    return file, folder / "run"


def checkpoint(run: Path, step: int) -> Path:
    return run / "sft" / "checkpoints" / f"checkpoint-{step}"


def until(step: int, trained: Path, run: Path) -> None:
    """Make `run` what `trained` was when it had just saved at `step`."""
    shutil.copytree(trained / "mixture", run / "mixture")
    shutil.copytree(checkpoint(trained, step), checkpoint(run, step))
    shutil.copy(trained / "sft" / "metrics.jsonl", run / "sft")


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {"truncated": truncate, "damaged": flip, "lacks": Path.unlink}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(trained, tmp_path, damage, capsys):
    _, run = trained
    run_id = json.loads((checkpoint(run, 6) / COMPLETE).read_text())["run"]
    assert newest_checkpoint(run / "sft", run_id) == checkpoint(run, 6)
    files = sorted(path.name for path in checkpoint(run, 6).iterdir())
    assert len(files) == 7
    for name in files:
        copy = tmp_path / name
        shutil.copytree(run / "sft" / "checkpoints", copy / "checkpoints")
        DAMAGES[damage](copy / "checkpoints" / "checkpoint-6" / name)
        capsys.readouterr()
        assert newest_checkpoint(copy, run_id) == copy / "checkpoints" / "checkpoint-3"
        (said,) = capsys.readouterr().out.splitlines()
        assert said.startswith("  checkpoint-6 ") and said.endswith("; going back to the one before")
        if name != COMPLETE:
            assert name in said and damage in said
        else:
            assert ("was cut off" if damage == "lacks" else f"damaged {COMPLETE}") in said


def test_other_folders_among_the_checkpoints_are_left_alone(trained, tmp_path):
    _, run = trained
    run_id = json.loads((checkpoint(run, 6) / COMPLETE).read_text())["run"]
    shutil.copytree(run / "sft" / "checkpoints", tmp_path / "checkpoints")
    kept = tmp_path / "checkpoints" / "checkpoint-6-kept"
    shutil.copytree(checkpoint(run, 6), kept)
    assert newest_checkpoint(tmp_path, run_id) == tmp_path / "checkpoints" / "checkpoint-6" and kept.exists()


def test_going_back_over_a_truncated_checkpoint_ends_bit_equal(trained, tmp_path, capsys):
    """Through dropout, a balance that follows the losses, and a loss that is summed but not logged at the save."""
    file, undisturbed = trained
    run = tmp_path / "run"
    until(6, undisturbed, run)
    until_3 = checkpoint(undisturbed, 3)
    shutil.copytree(until_3, checkpoint(run, 3))
    truncate(checkpoint(run, 6) / "optimizer.safetensors")
    capsys.readouterr()
    train_here(file, f"output_dir={run}")
    said = capsys.readouterr().out
    assert "checkpoint-6 has a truncated optimizer.safetensors" in said and "resuming from step 3" in said
    assert logged(run) == logged(undisturbed)
    assert [line["step"] for line in logged(run)] == [2, 4, 6]
    assert same_weights(run, undisturbed)
    assert summary(run) == summary(undisturbed)
    for step in (3, 6):
        ours, theirs = (sorted(p.name for p in checkpoint(one, step).iterdir()) for one in (run, undisturbed))
        assert ours == theirs


def summary(run: Path) -> float:
    """Return the mean loss that a run ends with."""
    return json.loads((run / "sft" / "metrics.jsonl").read_text().splitlines()[-1])["train_loss"]


def test_the_checkpoint_of_another_run_is_refused_in_one_sentence(trained, tmp_path):
    file, undisturbed = trained
    run = tmp_path / "run"
    until(6, undisturbed, run)
    with pytest.raises(UserError, match=r"written by another run .*give another output_dir or move it away") as caught:
        train_here(file, f"output_dir={run}", "sft.learning_rate=2e-2")
    assert "\n" not in str(caught.value) and str(checkpoint(run, 6)) in str(caught.value)
    assert not (run / "sft" / "model").exists() and logged(run) == logged(undisturbed)


def test_a_checkpoint_is_data_alone(trained):
    _, run = trained
    for path in sorted((run / "sft").rglob("*")):
        if path.is_dir():
            continue
        start = path.read_bytes()[:2]
        assert start != b"PK" and start[:1] != b"\x80", f"{path} is a zip file or a pickle"
    for path in checkpoint(run, 6).iterdir():
        if path.suffix == ".json":
            json.loads(path.read_text())
        else:
            with safe_open(path, "pt") as file:
                assert list(file.keys())


@contextmanager
def limited_disk(folder: Path) -> Iterator[Callable[[int | None], None]]:
    """Make `folder` a small disk of its own; yields what leaves so many bytes free (None: enough).

    Without the right to mount one, the largest size of a file stands for its space.
    """
    mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", folder], capture_output=True
    ).returncode
    filler = folder / "filler"

    def leave(free: int | None) -> None:
        if mounted:
            filler.unlink(missing_ok=True)
            with open(filler, "wb") as file:
                status = os.statvfs(folder)
                os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - (free or 48 << 20))
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (free or hard, hard))

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield leave
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if mounted:
            subprocess.run(["umount", "-l", folder], check=True)


@pytest.mark.parametrize("place", ["checkpoint", "final model"])
def test_a_full_disk_loses_nothing_earlier_and_the_same_command_goes_on(trained, tmp_path, capsys, place):
    file, undisturbed = trained
    disk = tmp_path / "disk"
    disk.mkdir()
    with limited_disk(disk) as leave:
        run = disk / "run"
        until(3, undisturbed, run)
        a_checkpoint = sum(path.stat().st_size for path in checkpoint(undisturbed, 6).iterdir())
        leave(a_checkpoint // 2 if place == "checkpoint" else 3 * a_checkpoint)
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            guarded(lambda: train_here(file, f"output_dir={run}"))
        said = capsys.readouterr()
        assert caught.value.code == 2 and "resuming from step 3" in said.out
        (sentence,) = [line for line in said.err.splitlines() if line.startswith("whetstone: ")]
        assert "run the same command again: finished work is kept" in sentence and "Traceback" not in said.err

        found = sorted(path.name for path in (run / "sft" / "checkpoints").iterdir())
        kept = ["checkpoint-3"] if place == "checkpoint" else ["checkpoint-3", "checkpoint-6"]
        assert found == kept and not (run / "sft" / "model").exists()
        leave(None)
        train_here(file, f"output_dir={run}")
        assert f"resuming from step {kept[-1][-1]}" in capsys.readouterr().out
        assert logged(run) == logged(undisturbed) and summary(run) == summary(undisturbed)
        assert same_weights(run, undisturbed)


def test_files_over_the_shells_limit_are_explained(capsys):
    def write() -> None:
        raise OSError(errno.EFBIG, "File too large", "weights.safetensors")

    with pytest.raises(SystemExit):
        guarded(write)
    assert "ulimit -f" in capsys.readouterr().err
