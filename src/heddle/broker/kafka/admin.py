"""Topics and groups on Kafka."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # exported, but not in the sense of PEP 484
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from heddle.broker.kafka.config import client_config
from heddle.broker.kafka.failures import UNKNOWN_TOPIC, Reasons, configured, translated
from heddle.broker.log import NEVER_COMMITTED, Position, TopicSpec, TopicState
from heddle.errors import BrokerDownError
from heddle.settings import Settings

_TIMEOUT_S = 15.0
_GRACE_S = 5.0  # beyond the request's own time-out, until librdkafka must have answered
_POLL_S = 0.02
_INTERNAL = "__"


class KafkaAdmin:
    """`replication` is for topics that do not name theirs."""

    def __init__(self, settings: Settings, replication: int) -> None:
        self._replication = replication
        self._reasons = Reasons()
        with configured():
            self._client = AdminClient(client_config(settings, self._reasons))

    def topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        wanted = sorted(set(names))
        if not wanted:
            return {}
        found: dict[str, Any] = {}
        with translated("describing topics", self._reasons):
            futures = self._client.describe_topics(TopicCollection(wanted), request_timeout=_TIMEOUT_S)
        for name, future in futures.items():
            with translated(f"describing topic {name}", self._reasons):
                description = self._known(future)
            if description is not None:
                found[name] = description
        configs = self._configs(list(found))
        return {name: _state(name, description, configs[name]) for name, description in found.items()}

    def topic_names(self) -> list[str]:
        self.broker_count()  # it tells why there is no answer; the next call only that there is none
        with translated("listing topics", self._reasons):
            names = self._client.list_topics(timeout=_TIMEOUT_S).topics
        return sorted(name for name in names if not name.startswith(_INTERNAL))

    def create_topics(self, specs: Iterable[TopicSpec]) -> None:
        new = [
            NewTopic(spec.name, spec.partitions, spec.replication or self._replication, config=dict(spec.config))
            for spec in specs
        ]
        if not new:
            return
        with translated("creating topics", self._reasons):
            futures = self._client.create_topics(new, request_timeout=_TIMEOUT_S)
        for name, future in futures.items():
            with translated(f"creating topic {name}", self._reasons):
                self._result(future)
        self._wait_for_leaders({topic.topic: topic.num_partitions for topic in new})

    def alter_topic(self, name: str, config: Mapping[str, str]) -> None:
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        with translated(f"altering topic {name}", self._reasons):
            for future in self._client.incremental_alter_configs([resource], request_timeout=_TIMEOUT_S).values():
                self._result(future)

    def grow_topic(self, name: str, partitions: int) -> None:
        with translated(f"adding partitions to topic {name}", self._reasons):
            futures = self._client.create_partitions([NewPartitions(name, partitions)], request_timeout=_TIMEOUT_S)
            for future in futures.values():
                self._result(future)
        self._wait_for_leaders({name: partitions})

    def delete_topics(self, names: Iterable[str]) -> None:
        wanted = list(names)
        if not wanted:
            return
        with translated("deleting topics", self._reasons):
            futures = self._client.delete_topics(wanted, request_timeout=_TIMEOUT_S)
        for name, future in futures.items():
            with translated(f"deleting topic {name}", self._reasons):
                self._result(future)

    def broker_count(self) -> int:
        with translated("describing the cluster", self._reasons):
            return len(self._result(self._client.describe_cluster(request_timeout=_TIMEOUT_S)).nodes)

    def end_offsets(self, partitions: Mapping[str, Iterable[int]]) -> dict[str, dict[int, int]]:
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        found: dict[str, dict[int, int]] = {topic: {} for topic in partitions}
        wanted = {TopicPartition(topic, number): latest for topic in found for number in partitions[topic]}
        if not wanted:
            return found
        with translated("offsets of topics", self._reasons):
            futures = self._client.list_offsets(
                wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=_TIMEOUT_S
            )
        for place, future in futures.items():
            with translated(f"offsets of {place.topic}", self._reasons):
                found[place.topic][place.partition] = self._result(future).offset
        return found

    def group_positions(self, group: str, topic: str, partitions: Iterable[int]) -> dict[int, Position]:
        wanted = [TopicPartition(topic, partition) for partition in partitions]
        if not wanted:
            return {}
        with translated(f"positions of group {group}", self._reasons):
            request = [ConsumerGroupTopicPartitions(group, wanted)]
            future = self._client.list_consumer_group_offsets(request, request_timeout=_TIMEOUT_S)[group]
            return {p.partition: _position(p) for p in self._result(future).topic_partitions}

    def group_members(self, groups: Iterable[str]) -> dict[str, int]:
        wanted, found = sorted(set(groups)), {}
        if not wanted:
            return {}
        with translated("describing groups", self._reasons):
            futures = self._client.describe_consumer_groups(wanted, request_timeout=_TIMEOUT_S)
        for group, future in futures.items():
            with translated(f"describing group {group}", self._reasons):
                description = self._known(future, KafkaError.GROUP_ID_NOT_FOUND)
            found[group] = 0 if description is None else len(description.members)
        return found

    def close(self) -> None:
        """librdkafka ends with the last reference to it."""
        del self._client

    def _configs(self, names: list[str]) -> dict[str, dict[str, str]]:
        """The settings that a topic has of its own."""
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
        with translated("describing settings of topics", self._reasons):
            futures = self._client.describe_configs(resources, request_timeout=_TIMEOUT_S) if resources else {}
        found = {}
        for resource, future in futures.items():
            with translated(f"describing the settings of topic {resource.name}", self._reasons):
                found[resource.name] = _own(self._result(future))
        return found

    def _wait_for_leaders(self, topics: Mapping[str, int]) -> None:
        """Creation is done when the controller says so; clients can use a topic once its partitions have leaders."""
        deadline = time.monotonic() + _TIMEOUT_S
        while not all(self._has_leaders(name, partitions) for name, partitions in topics.items()):
            if time.monotonic() > deadline:
                raise BrokerDownError(f"topics {', '.join(topics)} have no leaders yet", hint="check the brokers")
            time.sleep(_POLL_S)

    def _has_leaders(self, name: str, partitions: int) -> bool:
        with translated(f"describing topic {name}", self._reasons):
            metadata = self._client.list_topics(name, timeout=_TIMEOUT_S).topics[name]
        return len(metadata.partitions) == partitions and all(p.leader >= 0 for p in metadata.partitions.values())

    def _known(self, future: Future[Any], *unknown: int) -> Any:
        """The result, or None where what was asked for does not exist."""
        try:
            return self._result(future)
        except KafkaException as error:
            if error.args[0].code() in UNKNOWN_TOPIC.union(unknown):
                return None
            raise

    def _result(self, future: Future[Any]) -> Any:
        """Serve librdkafka's error events while waiting: they tell why no answer will come."""
        deadline = time.monotonic() + _TIMEOUT_S + _GRACE_S
        while not future.done():
            self._client.poll(_POLL_S)
            if self._reasons.is_refused or time.monotonic() > deadline:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        return future.result()


# As Kafka's own tools print a topic id; the client's form has slashes, which entry names could not hold.
_URL_SAFE = str.maketrans("+/", "-_")


def _state(name: str, description: Any, config: Mapping[str, str]) -> TopicState:
    partitions = description.partitions
    topic_id = str(description.topic_id).translate(_URL_SAFE)
    return TopicState(name, topic_id, len(partitions), len(partitions[0].replicas), config)


def _own(entries: Mapping[str, Any]) -> dict[str, str]:
    return {
        name: entry.value
        for name, entry in entries.items()
        if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value and entry.value is not None
    }


def _position(partition: TopicPartition) -> Position:
    if partition.error is not None:
        raise KafkaException(partition.error)
    if partition.offset < 0:
        return Position(NEVER_COMMITTED)
    return Position(partition.offset, partition.metadata or "")
