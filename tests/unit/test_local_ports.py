"""Ports: free, fixed, remembered."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from heddle.local.ports import HOST, Ports, choose, free_port, is_free, load, save
from heddle.local.problems import LocalStackError


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_five_different_free_ports() -> None:
    chosen = choose(Ports(), Ports())
    numbers = {chosen.kafka, chosen.controller, chosen.registry, chosen.management, chosen.postgres}
    assert len(numbers) == 5
    assert all(is_free(number) for number in numbers)


def test_ports_stay_below_those_of_outgoing_connections() -> None:
    assert all(15_000 <= free_port() < 32_000 for _ in range(20))


def test_a_fixed_port_that_is_taken_is_named_with_its_option(taken: int) -> None:
    with pytest.raises(LocalStackError, match=f"port {taken}, which kafka wants, is taken") as caught:
        choose(Ports(kafka=taken), Ports())
    assert "--kafka-port" in caught.value.hint


def test_remembered_ports_are_kept_where_still_free(taken: int) -> None:
    before = choose(Ports(), Ports())
    assert choose(Ports(), before) == before
    moved = choose(Ports(), Ports(kafka=taken, postgres=before.postgres))
    assert moved.kafka != taken
    assert moved.postgres == before.postgres


def test_a_running_server_of_ours_keeps_the_port_it_listens_on(taken: int) -> None:
    assert choose(Ports(), Ports(kafka=taken), frozenset({"kafka"})).kafka == taken


def test_a_damaged_ports_file_means_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    assert load(path) == Ports()
    save(path, Ports(kafka=15_001, postgres=15_002))
    assert load(path) == Ports(kafka=15_001, postgres=15_002)
    for damage in ("", "[]", "null", '{"kafka": "x", "other": 1}'):
        path.write_text(damage, encoding="utf-8")
        assert load(path) == Ports()
