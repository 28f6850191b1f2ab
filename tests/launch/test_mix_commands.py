"""`whetstone mix build, show, diff, sample, card` on a small recipe, with the real tokenizer."""

import json

import pytest

from launch.cli import main

RECIPE = """
description: a small mixture
tasks:
  chat:
    kind: instruction
    source: {{type: files, path: chat.jsonl}}
    heldout_rows: 3
    licence: MIT
    flaws: Made up.
  sums:
    kind: domain
    source: {{type: reasoning_gym, dataset: chain_sum, seed: 1, config: {{min_terms: 2, max_terms: 2}}}}
    prompt: "What is {{{{ metadata.expression }}}}?"
    verifiers: [number]
    train_rows: {sums}
    heldout_rows: 3
    licence: Apache-2.0
cleaning: {{protect: heldout}}
mixing: {{scheme: temperature, temperature: 2, epoch_rows: 60, max_epochs: 3}}
"""


@pytest.fixture(scope="module")
def mixtures(tmp_path_factory, model_folder):
    folder = tmp_path_factory.mktemp("mix")
    animals = ["ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay", "kite", "lark", "mole", "newt"]
    animals += ["owl", "pig", "quail", "rat", "seal", "toad"]
    lines = [
        {"instruction": f"Tell me of the {one}.", "output": f"[bold]The {one}[/bold] is small."} for one in animals
    ]
    (folder / "chat.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[5]]))
    for name, sums in (("a", 40), ("b", 50)):
        (folder / f"{name}.yaml").write_text(RECIPE.format(sums=sums))
        main(["mix", "build", str(folder / f"{name}.yaml"), "--output", str(folder / name), "--seed", "4"])
    return folder


def said(capsys, *words) -> str:
    capsys.readouterr()
    main([str(word) for word in words])
    return capsys.readouterr().out


def test_show_gives_asked_and_given_shares_and_what_was_removed(mixtures, capsys):
    shown = said(capsys, "mix", "show", mixtures / "a")
    chat = next(line for line in shown.splitlines() if "chat" in line)
    assert "39.5%" in chat and "40.0%" in chat, "asked: 17 rows against 40, by their roots"
    assert "duplicate question" in shown and "an epoch reads 60 rows" in shown


def test_diff_explains(mixtures, capsys):
    assert "the same, byte for byte" in said(capsys, "mix", "diff", mixtures / "a", mixtures / "a")
    explained = said(capsys, "mix", "diff", mixtures / "a", mixtures / "b")
    assert "recipe, tasks.sums.train_rows: 40 -> 50" in explained
    sums = next(line for line in explained.splitlines() if "sums" in line and "->" in line and "recipe" not in line)
    assert "40 -> 50" in sums and " 10 " in sums


def test_sample_prints_what_the_model_sees(mixtures, capsys):
    shown = said(capsys, "mix", "sample", mixtures / "a", "--task", "chat", "-n", "2")
    assert shown.count("--- position") == 2 and shown.count("<|im_start|>assistant") == 2
    assert "[bold]The" in shown, "markup in a row is text"
    again = said(capsys, "mix", "sample", mixtures / "a", "-n", "1", "--start", "7")
    assert again.startswith("--- position 7:")
    for wrong, message in ((["--task", "chut"], "did you mean 'chat'"), (["--model", "nowhere/"], "no such folder")):
        with pytest.raises(SystemExit) as stopped:
            main(["mix", "sample", str(mixtures / "a"), *wrong])
        assert stopped.value.code == 2 and message in capsys.readouterr().err


def test_the_card_names_sources_licences_counts_and_flaws(mixtures, capsys):
    card = said(capsys, "mix", "card", mixtures / "a")
    assert "| chat | instruction | MIT | 17 |" in card and "1 duplicate question" in card
    assert "- sums: reasoning-gym chain_sum, seed 1" in card and "- chat: Made up." in card


@pytest.mark.parametrize("sbatch", [None, "#!/bin/sh\necho 'sbatch: error: no such partition' >&2\nexit 1\n"])
def test_a_folder_that_is_no_mixture_is_left_alone(mixtures, capsys, tmp_path, tmp_path_factory, monkeypatch, sbatch):
    programs = tmp_path_factory.mktemp("programs")
    if sbatch:
        (programs / "sbatch").write_text(sbatch)
        (programs / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(programs))
    (tmp_path / "precious.txt").write_text("mine")
    for words in (
        ["mix", "build", str(mixtures / "a.yaml"), "--output", str(tmp_path)],
        ["mix", "show", str(tmp_path)],
        ["mix", "sho", str(tmp_path)],
        ["mix", "build", "no_such_recipe", "--output", str(tmp_path / "x")],
        ["mix", "build", str(mixtures / "a.yaml"), "--output", str(tmp_path / "x"), "--slurm", "cpu"],
    ):
        with pytest.raises(SystemExit) as stopped:
            main(words)
        assert stopped.value.code == 2 and "whetstone: " in capsys.readouterr().err
    kept = {".x.parts"} if sbatch else set()  # what was prepared for the jobs, for the next attempt
    assert {path.name for path in tmp_path.iterdir()} == {"precious.txt"} | kept
