"""How thorough a run is."""

from __future__ import annotations

from collections.abc import Callable

import attrs

__all__ = ["Settings"]


@attrs.frozen
class Settings:
    """How thorough a run is.

    Attributes:
        rounds: Of everything short; what takes seconds runs in fewer.
        seconds: How long one call is measured in a round, at most.
        scale: Factor for numbers of samples.
        say: Told how far the run is.
    """

    rounds: int = 7
    seconds: float = 1.5
    scale: float = 1.0
    say: Callable[[str], None] = lambda text: None

    def count(self, samples: int) -> int:
        """Return how many samples to take."""
        return max(50, int(samples * self.scale))

    def fewer(self, rounds: int) -> int:
        """Return the rounds of something that takes long: no more than this."""
        return min(self.rounds, rounds)
