"""Batches of users with their histories, on the device that learns from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from milvine.models.base import Histories


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Some users and their events, in compressed rows, oldest first within a user."""

    offsets: Tensor
    """(users + 1,) int64"""
    items: Tensor
    """(events,) int64: rows of items."""
    rows: Tensor
    """(events,) int64: the place of each event's user in the batch."""
    strengths: Tensor
    """(events,) float32"""
    users: Tensor
    """(users,) int64: their places in the data set."""
    share_of: Batch | None = None
    """The batch that these are some consecutive users of; None where they are all."""
    first_user: int = 0
    """The place of the first user among those of the whole batch."""
    first_event: int = 0
    """The place of the first event among those of the whole batch."""

    @property
    def whole(self) -> Batch:
        """The batch that this is a share of; itself where it is none."""
        return self if self.share_of is None else self.share_of

    @property
    def lengths(self) -> Tensor:
        """(users,) int64: how many events each user has."""
        return self.offsets.diff()

    @property
    def starts(self) -> Tensor:
        """(users,) int64: the first event of each user."""
        return self.offsets[:-1]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def share(self, number: int, count: int) -> Batch:
        """One of `count` shares with about as many users each; of few users some have none."""
        first, last = len(self) * number // count, len(self) * (number + 1) // count
        begin, end = self.offsets[[first, last]].tolist()
        return Batch(
            self.offsets[first : last + 1] - begin,
            self.items[begin:end],
            self.rows[begin:end] - first,
            self.strengths[begin:end],
            self.users[first:last],
            share_of=self,
            first_user=first,
            first_event=begin,
        )

    def of_users(self, draw: Callable[[int], Tensor]) -> Tensor:
        """What `draw` gives for so many users, (users, …); a share has what the whole has there."""
        return draw(len(self.whole))[self.first_user : self.first_user + len(self)]

    def of_events(self, draw: Callable[[int], Tensor]) -> Tensor:
        """The same for so many events, (events, …)."""
        drawn = draw(len(self.whole.items))
        return drawn[self.first_event : self.first_event + len(self.items)]


class Users:
    """All users of a data set on a device, from which batches are drawn."""

    def __init__(self, histories: Histories, device: str) -> None:
        self._offsets = torch.from_numpy(histories.offsets).to(device)
        self._items = torch.from_numpy(histories.items).to(device)
        self._strengths = torch.from_numpy(histories.strengths).to(device)

    @property
    def device(self) -> torch.device:
        """Where the batches are."""
        return self._offsets.device

    @property
    def lengths(self) -> Tensor:
        """(users,) int64: how many events each user has."""
        return self._offsets.diff()

    @property
    def all(self) -> Tensor:
        """(users,) int64: all of them."""
        return torch.arange(len(self.lengths), device=self.device)

    def batches(self, size: int, rng: torch.Generator) -> Iterator[Batch]:
        """All users with two events and more, in random order, about `size` events at a time."""
        users = torch.nonzero(self.lengths > 1)[:, 0]
        users = users[torch.randperm(len(users), generator=rng, device=self.device)]
        for some in _parted(users, self.lengths[users], size):
            yield self.take(some)

    def alike(self, size: int, rng: torch.Generator, *, longest: int) -> Iterator[Batch]:
        """The same as `batches`, users of like length together, of whom `longest` events count."""
        users = torch.nonzero(self.lengths > 1)[:, 0]
        jitter = torch.rand(len(users), generator=rng, device=self.device)
        lengths = self.lengths[users].clamp(max=longest)
        order = torch.argsort(lengths + jitter)
        parts = _parted(users[order], lengths[order], size)
        for part in torch.randperm(len(parts), generator=rng, device=self.device).tolist():
            yield self.take(parts[part])

    def take(self, users: Tensor) -> Batch:
        """The batch of some users, in their order."""
        lengths = self.lengths[users]
        offsets = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        rows = torch.repeat_interleave(lengths)
        events = (
            torch.arange(len(rows), device=self.device)
            + (self._offsets[users] - offsets[:-1])[rows]
        )
        items, strengths = self._items[events].long(), self._strengths[events]
        return Batch(offsets, items, rows, strengths, users)


def _parted(users: Tensor, lengths: Tensor, size: int) -> list[Tensor]:
    """Users (n,) in parts of about `size` events, in their order."""
    parts = (lengths.cumsum(0) - 1).div(size, rounding_mode="floor")
    sizes = torch.unique_consecutive(parts, return_counts=True)[1]
    return list(torch.split(users, sizes.tolist()))


def batch_of(histories: Histories) -> Batch:
    """The histories as one batch on the processor, as encoders read them."""
    return Batch(
        torch.from_numpy(histories.offsets),
        torch.from_numpy(histories.items.astype(np.int64)),
        torch.from_numpy(histories.users),
        torch.from_numpy(np.require(histories.strengths, np.float32, "W")),
        torch.arange(len(histories)),
    )


class Negatives:
    """Items drawn for all users of a batch at once; no item is drawn twice."""

    def __init__(self, shares: Tensor, count: int) -> None:
        self._shares = shares
        self._count = min(count, len(shares))
        self._slots = torch.full_like(shares, -1, dtype=torch.long)

    @classmethod
    def by_count(cls, counts: Tensor, exponent: float, count: int) -> Negatives:
        """So many items a batch, each in proportion to (1 + its users)^exponent."""
        shares = (counts + 1.0) ** exponent
        return cls(shares / shares.sum(), count)

    def draw(self, batch: Batch, rng: torch.Generator) -> Drawn:
        """The negatives of a batch."""
        items = torch.multinomial(self._shares, self._count, generator=rng)
        return self.among(items, self._count, batch)

    def among(self, items: Tensor, draws: int, batch: Batch) -> Drawn:
        """Different items as negatives, as if so many draws had given them."""
        self._slots[items] = torch.arange(len(items), device=items.device)
        slots = self._slots[batch.items]
        self._slots[items] = -1
        own = slots >= 0
        expected = (self._shares[items] * draws).clamp(max=1.0).log()
        return Drawn(items, expected, batch.rows[own], slots[own])


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Negatives that the users of a batch share."""

    items: Tensor
    """(negatives,) int64"""
    log_expected: Tensor
    """(negatives,): the logarithm of how often each was expected to be drawn."""
    own_rows: Tensor
    """With `own_slots`, the places of a matrix (users, negatives) of what users have."""
    own_slots: Tensor

    def own(self, user_count: int) -> Tensor:
        """(users, negatives) bool: what users have."""
        matrix = self.items.new_zeros((user_count, len(self.items)), dtype=torch.bool)
        return matrix.index_put((self.own_rows, self.own_slots), matrix.new_ones(()))

    def logits(self, scores: Tensor) -> Tensor:
        """Scores (users, negatives) corrected for the drawing, -inf for what the user has.

        The sum of their exponentials estimates that over all items that the user has not (Bengio
        and Senécal 2008, "Adaptive importance sampling", section 3).
        """
        corrected = scores.float() - self.log_expected
        never = torch.full((), -torch.inf, device=scores.device)
        return corrected.index_put((self.own_rows, self.own_slots), never)


def item_counts(histories: Histories, item_count: int, device: str) -> Tensor:
    """(items,) int64: how many users have each item."""
    return torch.from_numpy(np.bincount(histories.items, minlength=item_count)).to(device)
