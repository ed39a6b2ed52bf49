"""Topics and groups of the in-memory broker."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from heddle.broker.log import Position, TopicSpec, TopicState
from heddle.broker.memory.cluster import Cluster


class MemoryAdmin:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        with self._cluster.changed:
            return {name: self._cluster.state(name) for name in names if name in self._cluster.topics}

    def topic_names(self) -> list[str]:
        with self._cluster.changed:
            return sorted(self._cluster.topics)

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        with self._cluster.changed:
            for spec in specs:
                self._cluster.create(spec)

    def alter_topic(self, name: str, config: Mapping[str, str]) -> None:
        with self._cluster.changed:
            self._cluster.topic(name).config.update(config)

    def grow_topic(self, name: str, partitions: int) -> None:
        with self._cluster.changed:
            self._cluster.grow(name, partitions)

    def delete_topics(self, names: Iterable[str]) -> None:
        with self._cluster.changed:
            for name in names:
                self._cluster.topic(name)
                del self._cluster.topics[name]

    def broker_count(self) -> int:
        return 1

    def end_offsets(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, dict[int, int]]:
        with self._cluster.changed:
            return {
                topic: {number: self._cluster.partition(topic, number).last_stable for number in numbers}
                for topic, numbers in partitions.items()
            }

    def group_positions(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, Position]:
        with self._cluster.changed:
            return {partition: self._cluster.group(group).position(topic, partition) for partition in partitions}

    def group_members(self, groups: Iterable[str]) -> dict[str, int]:
        with self._cluster.changed:
            return {group: len(self._cluster.group(group).members) for group in groups}

    def close(self) -> None:
        """Nothing to give back."""
