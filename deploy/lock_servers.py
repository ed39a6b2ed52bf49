"""Rewrites the lock of the local stack's servers: `.venv/bin/python deploy/lock_servers.py`.

Resolves Kafka with its logging binding, downloads every file, and writes coordinate, size and SHA-256. Run it after a
version below was changed, and read the difference: nothing else decides what `heddle up` executes.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import jgo
from jgo.maven import MavenContext

# The "!" keeps jgo from importing each coordinate's own version wishes: without it, Kafka gets an older client library.
KAFKA = "org.apache.kafka:kafka_2.13:4.3.0!+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"
REGISTRY = ("io.apicurio", "apicurio-registry-app", "3.3.3", "all", "tar.gz")
LOCK = Path(__file__).parent.parent / "src" / "heddle" / "local" / "artifacts.lock.json"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["M2_REPO"] = folder
        context = MavenContext(repo_cache=Path(folder))

        def entry(coordinate: tuple[str, str, str, str, str]) -> dict[str, str | int]:
            group, artifact, version, classifier, kind = coordinate
            component = context.project(group, artifact).at_version(version)
            content = component.artifact(classifier=classifier, packaging=kind).resolve().read_bytes()
            names = {"group": group, "artifact": artifact, "version": version, "classifier": classifier, "type": kind}
            return {**names, "bytes": len(content), "sha256": sha256(content).hexdigest()}

        kafka = [(a.groupId, a.artifactId, a.version, a.classifier, a.packaging) for a in jgo.resolve(KAFKA)]
        with ThreadPoolExecutor(8) as pool:
            entries = sorted(pool.map(entry, [*kafka, REGISTRY]), key=lambda e: (e["group"], e["artifact"]))
    LOCK.write_text("[\n" + ",\n".join("  " + json.dumps(e) for e in entries) + "\n]\n", encoding="utf-8")
    sys.stdout.write(f"{len(entries)} files, {sum(int(e['bytes']) for e in entries) / 2**20:.0f} MB\n")


if __name__ == "__main__":
    main()
