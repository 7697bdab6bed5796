"""What a study asks for in `[tickets]`: rounds of iterative pruning. Standard library only."""

from __future__ import annotations

from dataclasses import dataclass

from multipress.errors import SpecError

__all__ = ["TicketSpec"]


@dataclass(frozen=True)
class TicketSpec:
    """Rounds of iterative magnitude pruning (Frankle and Carbin 2019; Movva and Zhao 2020, section 3).

    Args:
        rounds: How many; each is a whole training, or what `rate_to` leaves of one.
        share: Share of the weights left that a round removes.
        rewind: With what a round begins: `rate`, the last round's weights, the learning rate as at the beginning (Renda
            et al. 2020), or `weights`, those of the dense training after the share `at`; several are run side by side.
        at: Share of the dense training, for `weights`; 0: the weights before it.
        rate_to: Share of the training to which the learning rate is rewound before a round, which then has the steps
            that are left; one for each round, the last for all others. For `weights` it is `at`. Empty: each round is
            a whole training.
        weight_rounds: Rounds in which `weights` are rewound too, with the masks of the other rounds, those of controls
            too, while `rewind` is `rate` alone.
        importance: `magnitude`, or as a control `random`, or `none`: the same trainings, of which none takes a weight
            away; several are run side by side.
    """

    rounds: int
    share: float = 0.2
    rewind: tuple[str, ...] = ("rate",)
    at: float = 0.1
    importance: tuple[str, ...] = ("magnitude",)
    rate_to: tuple[float, ...] = ()
    weight_rounds: tuple[int, ...] = ()

    def part(self, number: int) -> tuple[float, float]:
        """Which part of a training round `number`, from 1, has; all of it where nothing is rewound."""
        return (self.rate_to[min(number, len(self.rate_to)) - 1] if self.rate_to else 0.0, 1.0)

    def sparsity(self, number: int, importance: str) -> float:
        """The share of the ranked weights that is gone after round `number`."""
        return 0.0 if importance == "none" else float(1 - (1 - self.share) ** number)

    def num_rounds(self, rewind: str, importance: str) -> int:
        """How many there are of one way; where nothing but weights is rewound, all are the same training: one."""
        return 1 if (rewind, importance) == ("weights", "none") else self.rounds

    def rounds_with_weights(self, importance: str) -> tuple[int, ...]:
        """The rounds of `rate` beside which there is one with weights rewound."""
        return self.weight_rounds if importance != "none" else (1,) if self.weight_rounds else ()

    def __post_init__(self) -> None:
        if isinstance(self.rounds, bool) or not isinstance(self.rounds, int) or not 1 <= self.rounds <= 100:
            raise SpecError(f"tickets.rounds is {self.rounds!r}, but must be a whole number from 1 to 100.")
        if not _is_number(self.share) or not 0 < self.share < 1:
            raise SpecError(f"tickets.share is {self.share!r}, but must be a share above 0 and below 1.")
        if not _is_number(self.at) or not 0 <= self.at <= 0.99:
            raise SpecError(f"tickets.at is {self.at!r}, but must be a share from 0 to 0.99.")
        for name, known in (("rewind", ("rate", "weights")), ("importance", ("magnitude", "random", "none"))):
            if not getattr(self, name) or not set(getattr(self, name)) <= set(known):
                raise SpecError(f"tickets.{name} is {list(getattr(self, name))!r}; choose from: {', '.join(known)}.")
        self._check_rate_to()
        if self.weight_rounds:
            self._check_weight_rounds()

    def _check_rate_to(self) -> None:
        for value in self.rate_to:
            if not _is_number(value) or not 0 <= value < 1:
                raise SpecError(f"tickets.rate_to holds {value!r}, but must hold shares from 0 to below 1.")
        if len(self.rate_to) > self.rounds:
            raise SpecError(f"tickets.rate_to holds {len(self.rate_to)} shares, but tickets.rounds is {self.rounds}.")

    def _check_weight_rounds(self) -> None:
        if not all(type(number) is int and 1 <= number <= self.rounds for number in self.weight_rounds):
            raise SpecError(f"tickets.weight_rounds is {list(self.weight_rounds)}; rounds are 1 to {self.rounds}.")
        if len(set(self.weight_rounds)) < len(self.weight_rounds):
            raise SpecError(f"tickets.weight_rounds holds a number twice: {list(self.weight_rounds)}.")
        if self.rewind != ("rate",):
            raise SpecError('tickets.weight_rounds needs rewind = "rate": it rewinds weights in some rounds of those.')
        if "magnitude" not in self.importance:
            raise SpecError("tickets.weight_rounds are rounds of magnitude pruning; tickets.importance leaves it out.")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
