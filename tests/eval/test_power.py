"""Power against worked numbers and simulation, and the command."""

import argparse
from math import sqrt

import numpy as np
import pytest

from data_recipes.errors import UserError
from eval.comparison import mcnemar
from eval.power import Plan, detectable
from launch.power import add_power_command, run_power


def command(*words):
    parser = argparse.ArgumentParser()
    add_power_command(parser.add_subparsers())
    run_power(parser.parse_args(["power", *map(str, words)]))


def test_items_needed_on_worked_numbers():
    # Connor: (1.95996 sqrt(0.2) + 0.84162 sqrt(0.2 - 0.0025))^2 / 0.0025 = (0.87652 + 0.37402)^2 / 0.0025
    assert Plan(0.6, discordant=0.2).items_needed(0.05) == 626
    assert Plan(0.6, discordant=0.2, design_effect=2).items_needed(0.05) == 1252
    # three rows make three pairs: z of 0.05 / 3, two-sided, is 2.39398; (1.07062 + 0.37402)^2 / 0.0025 = 834.8
    assert Plan(0.6, discordant=0.2, rows=3).items_needed(0.05) == 835


def test_discordance_follows_from_the_correlation():
    # uncorrelated rows at 0.5 and 0.6: 0.5 * 0.4 + 0.5 * 0.6
    assert Plan(0.5, correlation=0.0).discordance(0.1) == pytest.approx(0.5)
    assert Plan(0.5, correlation=0.999).discordance(0.1) == pytest.approx(0.1), "at least the difference itself"
    assert Plan(0.95).discordance(0.1) is None, "nothing is right more often than always"
    assert Plan(0.6, discordant=0.2).discordance(0.3) is None


@pytest.mark.parametrize("plan", [Plan(0.6), Plan(0.3, discordant=0.2), Plan(0.9, correlation=0.2, design_effect=1.5)])
def test_the_smallest_difference_and_the_items_it_takes_are_inverse(plan):
    for items in (300, 1000, 12032):
        smallest = plan.smallest_difference(items)
        assert plan.items_needed(smallest) == pytest.approx(items, abs=1)
        assert plan.chance(items, smallest) == pytest.approx(0.8, abs=1e-6)


def test_the_promised_power_is_what_mcnemars_test_reaches():
    generator = np.random.default_rng(0)
    plan = Plan(0.6, discordant=0.25)
    for difference in (0.06, 0.1):
        items = plan.items_needed(difference)
        won, lost, _ = generator.multinomial(
            items, [(0.25 + difference) / 2, (0.25 - difference) / 2, 0.75], size=1500
        ).T
        found = np.mean([mcnemar(int(b), int(c)) < 0.05 for b, c in zip(won, lost, strict=True)])
        assert found == pytest.approx(0.8, abs=0.045), "the exact test is a little careful"


def test_a_design_effect_is_that_of_clusters_of_like_answers():
    generator = np.random.default_rng(1)
    size, alike = 5, 0.3
    shared = np.repeat(generator.normal(size=(4000, 1)), size, axis=1)
    scores = sqrt(alike) * shared + sqrt(1 - alike) * generator.normal(size=shared.shape)
    measured = scores.mean(axis=1).var() / (scores.var() / size)
    assert measured == pytest.approx(1 + (size - 1) * alike, rel=0.06)


def test_few_items_show_nothing():
    assert Plan(0.5).smallest_difference(4) is None
    assert Plan(0.5).smallest_difference(40) > 0.2


def test_detectable_is_2_8_standard_errors():
    assert detectable(0.01) == pytest.approx(0.0280159, abs=1e-6)
    assert detectable(0.01, pairs=45) > detectable(0.01) > detectable(0.01, power=0.5)


def test_the_command_prints_both_ways(capsys):
    command("--items", 500, "--accuracy", 0.6)
    assert "500 items: the smallest difference that shows is 6.07 points" in capsys.readouterr().out
    command("--items", 500, "--accuracy", 0.6, "--discordant", 0.2, "--difference", 0.05)
    said = capsys.readouterr().out
    assert "5 points: take 626 items" in said and "5 points on 500 items: show with a power of 0.7" in said
    command("--items", 4, "--accuracy", 0.5)
    assert "too few to show any difference" in capsys.readouterr().out
    command("--accuracy", 0.6, "--difference", 0.03, "--rows", 10)
    assert "among the 45 pairs of 10 rows" in capsys.readouterr().out


def test_the_command_examines_a_run(capsys, write_run):
    command(write_run("mine"), "--difference", 0.1)
    said = capsys.readouterr().out
    assert "heldout" in said and "critique" in said and "items for 10" in said and "assumed" not in said
    command(write_run("alone", rows={"base": {"right": 5}}))
    assert "another as good is assumed, whose scores correlate with its own at 0.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --accuracy and --items or --difference"),
        (["--items", 5], "give --accuracy"),
        (["--accuracy", 0.6], "give --accuracy and --items"),
        (["--accuracy", 60, "--items", 5], "--accuracy 60 is no share"),
        (["--accuracy", "nan", "--items", 5], "--accuracy nan is no share"),
        (["--accuracy", 0.6, "--items", 0], "--items 0: give at least one"),
        (["--accuracy", 0.6, "--items", 10**400], "no more than a million million"),
        (["--accuracy", 0.6, "--items", 9, "--discordant", 1.2], "--discordant 1.2 is no share"),
        (["--accuracy", 0.6, "--items", 9, "--correlation", 1], "--correlation 1 does not lie between"),
        (["--accuracy", 0.6, "--items", 9, "--design-effect", "inf"], "--design-effect inf is not positive"),
        (["--accuracy", 0.6, "--items", 9, "--rows", 1], "it takes two rows"),
        (["--accuracy", 0.6, "--items", 9, "--power", 1], "--power 1 is no share"),
        (["--accuracy", 0.6, "--items", 9, "--level", 0], "--level 0 is no share"),
        (["--accuracy", 0.6, "--difference", -0.1], "--difference -0.1 is no share"),
        (["--accuracy", 0.6, "--difference", 0.3, "--discordant", 0.2], "cannot be at an accuracy of 0.6 and a disc"),
        (["--accuracy", 0.99, "--difference", 0.05], "cannot be at an accuracy of 0.99; give a smaller one"),
        (["/nowhere"], "/nowhere: no such folder"),
        (["/nowhere", "--rows", 3], "--rows is for a plan, and a run has its own"),
        (["/tmp", "--difference", 3], "--difference 3 is no share"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(words, told):
    with pytest.raises(UserError) as caught:
        command(*words)
    assert told in str(caught.value) and "\n" not in str(caught.value)
