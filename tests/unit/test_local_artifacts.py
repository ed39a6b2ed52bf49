"""The servers' files: fetched once, checked, repaired when damaged."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from heddle.errors import DependencyDownError
from heddle.local.artifacts import Artifact, Progress, distrust, install, missing, read_lock
from heddle.local.problems import LocalStackError


class Shelf:
    """A folder of published files, and a fetch function that counts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetched: list[str] = []
        folder.mkdir()

    def publish(self, name: str, content: bytes, kind: str = "jar") -> Artifact:
        artifact = Artifact("org.example", name, "1.0", "", kind, len(content), sha256(content).hexdigest())
        (self.folder / artifact.filename).write_bytes(content)
        return artifact

    def fetch(self, artifact: Artifact, folder: Path, progress: Progress) -> Path:
        self.fetched.append(artifact.filename)
        folder.mkdir(parents=True)
        path = Path(shutil.copy(self.folder / artifact.filename, folder))
        progress(artifact.bytes)
        return path


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "shelf")


@pytest.fixture
def lock(shelf: Shelf) -> list[Artifact]:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("quarkus-run.jar", "lib/main.jar"):
            entry = tarfile.TarInfo(name)
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"hello"))
    return [
        shelf.publish("broker", b"b" * 1000),
        shelf.publish("clients", b"c" * 500),
        shelf.publish("registry", buffer.getvalue(), "tar.gz"),
    ]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_the_committed_lock_is_complete_and_names_no_host() -> None:
    lock = read_lock()
    assert len(lock) == 47
    assert len({artifact.filename for artifact in lock}) == 47
    assert all(len(artifact.sha256) == 64 and artifact.bytes > 0 for artifact in lock)
    assert {a.version for a in lock if a.group == "org.apache.kafka"} == {"4.3.0"}
    assert not any("://" in str(artifact) for artifact in lock)


def test_a_second_install_fetches_nothing(shelf: Shelf, lock: list[Artifact], cache: Path) -> None:
    got: list[int] = []
    programs = install(cache, fetch=shelf.fetch, lock=lock, progress=got.append)
    assert [jar.name for jar in programs.kafka_jars] == ["broker-1.0.jar", "clients-1.0.jar"]
    assert (programs.registry_dir / "lib" / "main.jar").read_bytes() == b"hello"
    assert sum(got) == sum(artifact.bytes for artifact in lock)
    assert install(cache, fetch=shelf.fetch, lock=lock) == programs
    assert sorted(shelf.fetched) == sorted(artifact.filename for artifact in lock)


@pytest.mark.parametrize("damage", [b"", b"b" * 999, b"x" * 1000], ids=["empty", "truncated", "same size"])
def test_a_damaged_file_is_fetched_again_once(damage: bytes, shelf: Shelf, lock: list[Artifact], cache: Path) -> None:
    programs = install(cache, fetch=shelf.fetch, lock=lock)
    shelf.fetched.clear()
    programs.kafka_jars[0].write_bytes(damage)
    assert [artifact.artifact for artifact in missing(cache, lock)] == ["broker"]
    install(cache, fetch=shelf.fetch, lock=lock)
    assert programs.kafka_jars[0].read_bytes() == b"b" * 1000
    assert shelf.fetched == ["broker-1.0.jar"]


def test_damage_that_kept_size_and_time_is_found_when_distrusted(
    shelf: Shelf, lock: list[Artifact], cache: Path
) -> None:
    jar = install(cache, fetch=shelf.fetch, lock=lock).kafka_jars[0]
    before = jar.stat()
    jar.write_bytes(b"x" * 1000)
    os.utime(jar, ns=(before.st_atime_ns, before.st_mtime_ns))
    distrust(cache, "jar", lock)
    install(cache, fetch=shelf.fetch, lock=lock)
    assert jar.read_bytes() == b"b" * 1000


@pytest.mark.parametrize("name", ["quarkus-run.jar", "lib/main.jar"])
def test_an_unpacked_file_that_is_damaged_or_gone_is_restored(
    name: str, shelf: Shelf, lock: list[Artifact], cache: Path
) -> None:
    registry = install(cache, fetch=shelf.fetch, lock=lock).registry_dir
    (registry / name).write_bytes(b"hel")
    install(cache, fetch=shelf.fetch, lock=lock)
    assert (registry / name).read_bytes() == b"hello"
    (registry / name).unlink()
    install(cache, fetch=shelf.fetch, lock=lock)
    assert (registry / name).read_bytes() == b"hello"


def test_a_broken_download_is_repeated(shelf: Shelf, lock: list[Artifact], cache: Path) -> None:
    def broken_once(artifact: Artifact, folder: Path, progress: Progress) -> Path:
        path = shelf.fetch(artifact, folder, progress)
        if artifact.artifact == "clients" and shelf.fetched.count(artifact.filename) == 1:
            path.write_bytes(b"half")
        return path

    programs = install(cache, fetch=broken_once, lock=lock)
    assert programs.kafka_jars[1].read_bytes() == b"c" * 500
    assert shelf.fetched.count("clients-1.0.jar") == 2


def test_content_that_stays_wrong_is_explained_and_never_installed(
    shelf: Shelf, lock: list[Artifact], cache: Path
) -> None:
    (shelf.folder / "broker-1.0.jar").write_bytes(b"x" * 1000)
    with pytest.raises(LocalStackError, match=r"broker-1\.0\.jar does not have the content") as caught:
        install(cache, fetch=shelf.fetch, lock=lock)
    assert "proxy" in caught.value.hint
    assert shelf.fetched.count("broker-1.0.jar") == 2
    assert not (cache / "jars" / "broker-1.0.jar").exists()


def test_no_network_is_explained_and_leaves_the_rest_usable(shelf: Shelf, lock: list[Artifact], cache: Path) -> None:
    def down(artifact: Artifact, folder: Path, progress: Progress) -> Path:
        raise DependencyDownError(f"{artifact.filename} cannot be downloaded", hint="needs the network once")

    with pytest.raises(DependencyDownError, match="cannot be downloaded"):
        install(cache, fetch=down, lock=lock)
    install(cache, fetch=shelf.fetch, lock=lock)
    install(cache, fetch=down, lock=lock)


def test_a_disk_too_small_is_named_before_anything_is_fetched(shelf: Shelf, cache: Path) -> None:
    huge = Artifact("org.example", "huge", "1.0", "", "jar", 10**15, "0" * 64)
    with pytest.raises(LocalStackError, match=r"needs 2861022949 MB, its disk has \d+ MB free"):
        install(cache, fetch=shelf.fetch, lock=[huge])
    assert shelf.fetched == []


def test_starts_at_the_same_time_share_one_download(shelf: Shelf, lock: list[Artifact], cache: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        installed = list(pool.map(lambda _: install(cache, fetch=shelf.fetch, lock=lock), range(4)))
    assert len(set(installed)) == 1
    assert sorted(shelf.fetched) == sorted(artifact.filename for artifact in lock)
