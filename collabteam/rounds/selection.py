"""Selects the crops that join the training set: pure functions on numpy arrays.

A :class:`SelectionRule` chooses among the crops that a team labelled; common constraints, such as
at most one crop of a track, hold for every rule.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collabteam.settings import UNKNOWN, TrainConfig
from collabteam.settings.checks import resolve_group
from collabteam.settings.seams import SELECTION_RULES
from collabteam.team.voting import ABSTAIN, Verdicts

Tracks = Sequence[str] | NDArray[np.str_] | NDArray[np.object_] | NDArray[np.int64]
"""Track of every crop: names or numbers."""


@dataclass(frozen=True)
class Increment:
    """The crops that a round adds for one class.

    Attributes:
        taken: Positions of the drawn crops, ascending.
        candidates: Number of crops that could have been drawn.
        shortfall: How many crops fewer than asked for were drawn.
    """

    taken: NDArray[np.int64]
    candidates: int
    shortfall: int


def draw(
    positions: NDArray[np.int64],
    tracks: Tracks,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Draw crops at random, at most one of a track: further ones would be near copies.

    Args:
        positions: Positions to draw from.
        tracks: Track of every crop of the pool (indexed by position).
        count: How many to draw.
        rng: Source of randomness; the same state gives the same draw.

    Returns:
        At most ``count`` positions, ascending.
    """
    shuffled = rng.permutation(np.sort(positions))
    if not shuffled.size:
        return shuffled
    _, first = np.unique(np.asarray(tracks)[shuffled], return_index=True)
    return np.sort(shuffled[np.sort(first)[:count]])


class SelectionRule(ABC):
    """Chooses the crops that a round adds to the training set.

    A subclass names the candidates of a class (:meth:`candidates`), and may replace the random draw
    among them (:meth:`draw`). :meth:`select` holds for all rules: no crop of an excluded track, at
    most one crop of a track, and none of a track that two classes claim. Its settings are a
    dataclass ``Settings`` inside the class, declared with
    :func:`collabteam.settings.fields.setting`.
    :func:`collabteam.testing.selection_rules.check_selection_rule` checks a subclass.

    Args:
        settings: An instance of the class's own ``Settings``; None for the defaults.
        quantile: The setting ``quantile``, 0 to 1, which a rule may use.
    """

    @dataclass
    class Settings:
        """A rule's own settings: none."""

    def __init__(self, settings: Any = None, quantile: float = 0.75) -> None:
        self.settings: Any = self.Settings() if settings is None else settings
        self.quantile = quantile

    @abstractmethod
    def candidates(self, verdicts: Verdicts, branch: int) -> NDArray[np.int64]:
        """Return the crops that may be drawn for one class.

        The same method selects out-of-fold crops to estimate the precision of a draw.

        Args:
            verdicts: The team's verdicts.
            branch: Index of the class.

        Returns:
            Positions of crops with this verdict, each once, ascending.
        """

    def draw(
        self,
        positions: NDArray[np.int64],
        verdicts: Verdicts,
        tracks: Tracks,
        count: int,
        rng: np.random.Generator,
    ) -> NDArray[np.int64]:
        """Draw among the candidates of one class, at most one crop of a track.

        Args:
            positions: Candidates, ascending, without those of disputed tracks.
            verdicts: The team's verdicts, by position.
            tracks: Track of every crop, by position.
            count: How many to draw.
            rng: Source of all randomness.

        Returns:
            At most ``count`` of the positions, ascending.
        """
        return draw(positions, tracks, count, rng)

    def select(
        self,
        verdicts: Verdicts,
        tracks: Tracks,
        classes: int,
        count: int,
        seed: int | Sequence[int] = 0,
        excluded: NDArray[np.bool_] | None = None,
    ) -> list[Increment]:
        """Draw the increment of a round, class by class.

        A track with candidates of two classes belongs to neither: one object has one class.

        Args:
            verdicts: The team's verdicts on N crops of the pool.
            tracks: (N,) track of every crop; at most one crop of each is drawn.
            classes: Number of classes.
            count: Crops to add per class; a class with fewer candidates gives all it has.
            seed: Seed of the draw; each class has a random stream of its own.
            excluded: (N,) crops that count as if the team abstained, for example those of tracks
                that train already and would only add near copies; None for none.

        Returns:
            One increment per class.
        """
        tracks = np.asarray(tracks)
        if excluded is not None:
            kept = np.where(excluded, ABSTAIN, verdicts.branch)
            verdicts = Verdicts(kept, verdicts.confidence)
        chosen = [self.candidates(verdicts, branch) for branch in range(classes)]
        claims = [np.unique(tracks[positions]) for positions in chosen]
        names, claimants = np.unique(np.concatenate(claims), return_counts=True)
        disputed = names[claimants > 1]
        increments = []
        for branch, positions in enumerate(chosen):
            clear = positions[~np.isin(tracks[positions], disputed)]
            rng = np.random.default_rng([*np.atleast_1d(seed), branch])
            taken = self.draw(clear, verdicts, tracks, count, rng)
            increments.append(Increment(taken, len(clear), count - len(taken)))
        return increments


def selection_rule(config: TrainConfig) -> SelectionRule:
    """Make the rule that settings name.

    Args:
        config: ``selection`` and ``quantile`` count.

    Raises:
        UserError: There is no such rule, or it has no such setting.
    """
    rule: type[SelectionRule] = SELECTION_RULES.load(config.selection["name"])
    settings = resolve_group(SELECTION_RULES, config.selection, "selection")
    return rule(settings, config.quantile)


def sample_initial(
    strata: NDArray[np.object_],
    verified: NDArray[np.bool_],
    tracks: Tracks,
    classes: Sequence[str],
    count: int,
    seed: int | Sequence[int] = 0,
    unknown: int = 0,
) -> NDArray[np.int64]:
    """Sample i0 at random, ``count`` crops per class.

    Crops that a person has already verified come first, so that no answer is asked for twice; then
    one crop of each track; then further crops of the same tracks if there are too few. If no crop
    has a proposal, the sample is drawn from all crops regardless of class.

    Objects of no class teach every branch to vote *false*. Crops verified as ``unknown`` are
    included, at most as many as of a class; crops only proposed as ``unknown`` fill up to the
    number ``unknown``.

    Args:
        strata: (N,) class of each crop as far as known before review: the verified label, else
            the proposed one, else ``''``.
        verified: (N,) whether a person has verified the crop.
        tracks: (N,) track of each crop.
        classes: Names of the classes.
        count: Crops per class.
        seed: Seed of the draw; each class has a random stream of its own.
        unknown: Number of crops proposed as ``unknown``, including those verified as such.

    Returns:
        Positions, ascending; fewer than asked for where a class has fewer crops.
    """
    chosen = []
    for number, name in enumerate(classes):
        rng = np.random.default_rng([*np.atleast_1d(seed), number])
        of_class = np.flatnonzero(strata == name)
        chosen.append(_sample_one(of_class, verified, tracks, count, rng))
    if not any(part.size for part in chosen):
        rng = np.random.default_rng([*np.atleast_1d(seed), len(classes)])
        unnamed = np.flatnonzero(strata == "")
        chosen = [_sample_one(unnamed, verified, tracks, count * len(classes), rng)]
    strangers = np.flatnonzero(strata == UNKNOWN)
    wanted = max(unknown, min(count, int(verified[strangers].sum())))
    rng = np.random.default_rng([*np.atleast_1d(seed), len(classes) + 1])
    chosen.append(_sample_one(strangers, verified, tracks, wanted, rng))
    return np.sort(np.concatenate(chosen))


def _sample_one(
    positions: NDArray[np.int64],
    verified: NDArray[np.bool_],
    tracks: Tracks,
    count: int,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    shuffled = rng.permutation(positions)
    # All sorts are stable, so the random order stays within a rank. A verified crop represents its
    # track, so an unverified crop of the same track counts as a further one.
    shuffled = shuffled[np.argsort(~verified[shuffled], kind="stable")]
    _, first = np.unique(np.asarray(tracks)[shuffled], return_index=True)
    repeated = np.ones(len(shuffled), dtype=bool)
    repeated[first] = False
    order = np.lexsort((repeated, ~verified[shuffled]))
    return shuffled[order][:count]
