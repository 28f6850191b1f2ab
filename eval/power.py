"""How many items it takes to tell two rows apart, and the smallest difference that a number of items can show.

Two rows that answer the same items differ on some of them. With the share of items on which exactly one is right (the
discordant share) the sample size is that of McNemar's test: Connor 1987, "Sample Size for Testing Differences in
Proportions for the Paired-Sample Design". Where items hang together, a design effect divides their number. For scores
of any kind the same holds to first order with the standard error of the paired difference (arXiv 2411.00640): the
smallest difference is (z of the level + z of the power) standard errors.
"""

from dataclasses import dataclass
from math import ceil, isfinite, sqrt
from statistics import NormalDist

from data_recipes.errors import UserError

CORRELATION = 0.5
"""Of two rows' 0/1 scores, where nothing is known. Among models on MMLU-Pro the standard error of a paired difference
is 0.64 to 0.79 of that of an unpaired one, which is a correlation of 0.59 to 0.38."""


MOST = 10**12


def check_shares(**shares: float | None) -> None:
    """Check that numbers, named as the options of the command are, lie between 0 and 1; None is passed over.

    Raises:
        UserError: one does not.
    """
    for name, value in shares.items():
        if value is not None and not 0 < value < 1:
            raise UserError(f"--{name} {value:g} is no share: give a number between 0 and 1, such as 0.6")


@dataclass(frozen=True)
class Plan:
    """What a comparison of two rows rests on.

    Raises:
        UserError: a number is out of its range, or the two rows cannot be related so.
    """

    accuracy: float
    """Share of right answers of the weaker row."""
    discordant: float | None = None
    """Share of items on which exactly one row is right; None: from `correlation`."""
    correlation: float = CORRELATION
    design_effect: float = 1.0
    """Variance with clusters of dependent items over the variance without."""
    level: float = 0.05
    """Chance of seeing a difference between equals, two-sided."""
    power: float = 0.8
    """Chance of seeing the difference."""
    rows: int = 2
    """Rows on the board: the level is divided by their pairs, as in the first step of Holm's correction."""

    def __post_init__(self) -> None:
        check_shares(accuracy=self.accuracy, discordant=self.discordant, level=self.level, power=self.power)
        if not -1 < self.correlation < 1:
            raise UserError(f"--correlation {self.correlation:g} does not lie between -1 and 1")
        if not (self.design_effect > 0 and isfinite(self.design_effect)):
            raise UserError(f"--design-effect {self.design_effect:g} is not positive; 1 is that of independent items")
        if not 2 <= self.rows <= MOST:
            raise UserError(f"--rows {self.rows}: it takes two rows to compare, and no more than a million million")

    def discordance(self, difference: float) -> float | None:
        """Return the discordant share where the rows' accuracies differ by `difference`; None: no rows are like that.

        With correlation r it is p(1-p) + q(1-q) - 2 r sqrt(p(1-p) q(1-q)) + (q - p)^2.
        """
        p, q = self.accuracy, self.accuracy + difference
        if q > 1:
            return None
        share = self.discordant
        if share is None:
            a, b = p * (1 - p), q * (1 - q)
            # near its bounds a 0/1 pair cannot be as correlated as asked; it is then as much as it can
            share = max(difference, a + b - 2 * self.correlation * sqrt(a * b) + difference**2)
        return share if difference <= share <= min(p + q, 2 - p - q) + 1e-12 else None

    def chance(self, items: float, difference: float) -> float:
        """Return the chance that `items` show `difference` (its power), 0 where no two rows can differ so."""
        share = self.discordance(difference)
        if share is None:
            return 0.0
        spread = max(share - difference**2, 1e-12)
        distance = difference * sqrt(items / self.design_effect) - self._z() * sqrt(share)
        return NormalDist().cdf(distance / sqrt(spread))

    def _z(self) -> float:
        return -NormalDist().inv_cdf(self.level / (self.rows * (self.rows - 1)))

    def items_needed(self, difference: float) -> int:
        """Return how many items show `difference` with the plan's power: Connor's equation, times the design effect.

        Raises:
            UserError: no two rows can differ so under the plan.
        """
        check_shares(difference=difference)
        share = self.discordance(difference)
        if share is None:
            known = "" if self.discordant is None else f" and a discordant share of {self.discordant:g}"
            raise UserError(
                f"--difference {difference:g} cannot be at an accuracy of {self.accuracy:g}{known}; give a smaller one"
            )
        root = self._z() * sqrt(share) + NormalDist().inv_cdf(self.power) * sqrt(max(0.0, share - difference**2))
        return ceil(self.design_effect * (root / difference) ** 2 - 1e-9)

    def smallest_difference(self, items: int) -> float | None:
        """Return the smallest difference that `items` show with the plan's power; None: they are too few for any.

        Raises:
            UserError: there is no item.
        """
        if not 1 <= items <= MOST:
            raise UserError(f"--items {items}: give at least one, and no more than a million million")
        steps = [step / 10_000 for step in range(1, 10_000)]
        found = next((step for step in steps if self.chance(items, step) >= self.power), None)
        if found is None:
            return None
        low, high = found - 1e-4, found
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(items, middle) >= self.power else (middle, high)
        return high


def detectable(standard_error: float, *, level: float = 0.05, power: float = 0.8, pairs: int = 1) -> float:
    """Return the smallest difference of means that shows, given the standard error of paired differences.

    Args:
        pairs: comparisons among which the level is shared out.
    """
    normal = NormalDist()
    return (normal.inv_cdf(power) - normal.inv_cdf(level / (2 * pairs))) * standard_error
