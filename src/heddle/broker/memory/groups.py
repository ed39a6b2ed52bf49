"""A consumer group in memory: the classic protocol with cooperative-sticky assignment.

A rebalance begins when a member joins, leaves or is expelled, and completes once every member has polled. Then the
generation rises by one. Partitions that move are first taken from their owner in one generation and given in the next,
so that no partition has two owners at the same generation.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from heddle.broker.log import NEVER_COMMITTED, Position
from heddle.broker.memory.partitions import Transaction
from heddle.errors import StaleGenerationError


@dataclass(frozen=True, slots=True)
class MemoryGroupMetadata:
    """Proof of membership at one generation."""

    group: str
    member: str
    generation: int


@dataclass(slots=True, eq=False)
class Member:
    """`owned` is what it said when it joined last; `target` is what generation `granted` gives it.

    `generation` is the one that the member itself has taken in."""

    name: str
    polled_s: float
    owned: frozenset[int] = frozenset()
    target: frozenset[int] = frozenset()
    granted: int = -1
    generation: int = -1
    has_joined: bool = False


@dataclass(slots=True)
class Group:
    """Members, generation and committed positions. Not locked: the cluster's lock guards it."""

    name: str
    max_poll_interval_s: float
    generation: int = 0
    is_rebalancing: bool = False
    members: dict[str, Member] = field(default_factory=dict)
    positions: dict[tuple[str, int], Position] = field(default_factory=dict)
    _pending: dict[tuple[str, int], list[Transaction]] = field(default_factory=dict)
    _names: int = 0

    def join(self, now_s: float) -> Member:
        """A new member; its partitions come with the next generation."""
        self._names += 1
        member = Member(f"{self.name}-{self._names}", now_s)
        self.members[member.name] = member
        self.rebalance()
        return member

    def leave(self, member: Member) -> None:
        if self.members.pop(member.name, None) is not None:
            self.rebalance()

    def rebalance(self) -> None:
        self.is_rebalancing = True
        for member in self.members.values():
            member.has_joined = False

    def poll(self, member: Member, owned: frozenset[int], partitions: int, now_s: float) -> None:
        """A live member takes part; the last one to do so completes the rebalance."""
        member.polled_s = now_s
        for silent in [m for m in self.members.values() if now_s - m.polled_s > self.max_poll_interval_s]:
            self.leave(silent)
        if self.is_rebalancing:
            member.has_joined, member.owned = True, owned
            if all(m.has_joined for m in self.members.values()):
                self._complete(partitions)

    def check(self, metadata: MemoryGroupMetadata) -> None:
        """What the group coordinator checks of a transactional commit: member and generation, not the partitions."""
        if metadata.member not in self.members or metadata.generation != self.generation:
            raise StaleGenerationError(
                f"group {self.name} has moved on from generation {metadata.generation} of member {metadata.member}",
                hint="abort, poll, and run again what is still assigned",
            )

    def hold(self, topic: str, partition: int, transaction: Transaction) -> None:
        """A position is pending in a transaction: readers of committed positions wait for its end."""
        self._pending.setdefault((topic, partition), []).append(transaction)

    def settle(self, topic: str, partition: int, transaction: Transaction, position: Position | None) -> None:
        """The transaction has ended; `position` is None when it was aborted."""
        waiting = self._pending[topic, partition]
        waiting.remove(transaction)
        if not waiting:
            del self._pending[topic, partition]
        if position is not None:
            self.positions[topic, partition] = position

    def is_pending(self, topic: str, partition: int) -> bool:
        return (topic, partition) in self._pending

    def position(self, topic: str, partition: int) -> Position:
        return self.positions.get((topic, partition), Position(NEVER_COMMITTED))

    def _complete(self, partitions: int) -> None:
        self.is_rebalancing = False
        self.generation += 1
        held = {partition: member for member in self.members.values() for partition in member.owned}
        for member, target in self._targets(partitions).items():
            member.granted = self.generation
            member.target = frozenset(p for p in target if held.get(p, member) is member)

    def _targets(self, partitions: int) -> dict[Member, set[int]]:
        """As even as can be, moving as few as can be."""
        members = sorted(self.members.values(), key=lambda member: -len(member.owned))
        base, extra = divmod(partitions, len(members))
        quotas = {member: base + (index < extra) for index, member in enumerate(members)}
        targets = {member: set(sorted(member.owned)[: quotas[member]]) for member in members}
        free = sorted(set(range(partitions)).difference(*targets.values()), reverse=True)
        for member, target in targets.items():
            while len(target) < quotas[member]:
                target.add(free.pop())
        return targets
