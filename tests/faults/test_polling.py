"""A polled API that does all at once what APIs do, and a source that dies on the way: nothing is missed.

HEDDLE_FAULTS=full: 100,000 rows, 20,000 changes, 100 deaths (`make faults`). HEDDLE_FAULTS_SEED repeats the dice."""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))
from rest_harness import World, comparison, deals, deletions, source
from rest_server import START_S, Api, Asked, Reply, RestServer

from heddle.delivery.pull import PullWorker
from heddle.http.auth import ClientCredentials
from heddle.http.oauth import RefreshToken
from heddle.secrets import secret
from heddle.sources.rest import HighWater
from heddle.sources.rest.missing import DiffFollower
from heddle.sources.rest.puller import RestPuller

FULL = os.environ.get("HEDDLE_FAULTS") == "full"
ROWS, CHANGES, KILLS = (100_000, 20_000, 100) if FULL else (1_500, 500, 12)


class Crash(BaseException):
    """What no code catches."""


def is_sweeping(worker: PullWorker) -> bool:
    puller = worker._puller
    return not isinstance(puller, RestPuller) or any(each.standing.sweep is not None for each in puller._followers)


def dying(commit: Callable[[float], None], *, after: bool) -> Callable[[float], None]:
    """Commits, or not, and dies."""

    def die(timeout_s: float) -> None:
        if after:
            commit(timeout_s)
        raise Crash

    return die


def is_comparing(worker: PullWorker, first: list[int]) -> bool:
    """Until two listings have passed that ended after all was quiet: the second began then, too. `first`: the number of
    the one at that time."""
    assert isinstance(worker._puller, RestPuller)
    diffs = [each for each in worker._puller._followers if isinstance(each, DiffFollower)]
    numbers = [each.standing.listed.number if each.standing.listed is not None else 1 for each in diffs]
    first += numbers[: 1 - len(first)]
    return bool(diffs) and numbers[0] < first[0] + 2


class Consent:
    """Refresh tokens that are good once; the second use of one ends them all."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.valid = "a-key-of-the-crm"
        self.given = 0

    def answer(self, asked: Asked) -> Reply:
        if asked.form["refresh_token"] != self.valid:
            self.valid = ""
            return 400, {}, {"error": "invalid_grant"}
        self.given += 1
        self.valid = f"refresh-token-{self.given}"
        if not self.api.token:
            self.api.rotate()
        return 200, {}, {"access_token": self.api.token, "refresh_token": self.valid, "expires_in": 3600}


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("deletions_by", ["feed", "ids"])
def test_nothing_is_missed(
    deletions_by: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, record_property: Any
) -> None:
    """Rows change, appear late and go, cursors are forgotten, tokens rotate, the API refuses and fails, the source dies
    before and after its commits: in the end the topic's state is the API's."""
    seed = os.environ.get("HEDDLE_FAULTS_SEED") or str(random.SystemRandom().randrange(2**31))
    dice = random.Random(seed)
    monkeypatch.setenv("HEDDLE_SECRET_CRM_KEY", "a-key-of-the-crm")
    api = Api(page_rows=200 if FULL else 25)
    for number in range(ROWS):
        api.put(number, f"n{number}", at=START_S - ROWS + number)
    server, consent = RestServer(api), Consent(api)
    key, url = secret("crm/key"), f"{server.url}/v1/token"
    if deletions_by == "feed":
        declared = source(server, deals(), deletions(), auth=ClientCredentials(f"{server.url}/token", "heddle", key))
    else:
        rotating = RefreshToken(name="crm", token_url=url, client_id="heddle", first=key, folder=tmp_path)
        follow = HighWater(changed="updatedAt", since="updated_since", overlap_s=60, is_sorted=True)
        declared = source(server, deals(follow=follow), comparison(every_s=20 if FULL else 0), auth=rotating)
    world = World(api, declared)
    left, number, rotated = CHANGES, ROWS, 0
    per_request = CHANGES // (2_000 if FULL else 100)

    def there() -> int:
        return next(one for one in iter(lambda: dice.randrange(number), -1) if one in api.rows)

    def live(asked: Asked) -> Reply | None:  # in the server's thread, before each answer
        nonlocal left, number, rotated
        api.now += dice.random() * 4
        for _ in range(min(left, dice.randrange(2 * per_request))):
            left -= 1
            what = dice.random()
            if what < 0.5:
                api.put(number, f"new {number}", at=api.now - dice.random() * 50)  # visible late, by up to 50 s
                number += 1
            elif what < 0.8:
                api.put(there(), f"changed {left}")
            else:
                api.delete(there())
        mood = dice.random() if left else 1.0
        if mood < (0.01 if FULL else 0.03):
            api.forget_cursors()
        elif mood < 0.04 and len(api.asked) > rotated + 2:
            rotated = len(api.asked)  # not twice in one request: that is a refusal, and stops the source
            api.rotate()
        elif mood < 0.08:
            return 429, {"Retry-After": "0"}, {}
        elif mood < 0.10:
            return 500, {}, {}
        return consent.answer(asked) if asked.path == "/v1/token" else None

    api.before = live
    monkeypatch.setattr("heddle.delivery.patience.WAIT_MAX_S", 0.01)
    monkeypatch.setattr("heddle.delivery.patience.WAIT_MIN_S", 0.01)
    worker = world.worker()
    idle = killed = turns = 0
    quiet, began_s = list[int](), time.monotonic()
    # A range that is read again brings nothing new for long.
    while idle < 30 or left or is_sweeping(worker) or is_comparing(worker, quiet):
        turns += 1
        assert time.monotonic() < began_s + 1_500
        with monkeypatch.context() as patched:
            if killed < KILLS and turns % 7 == 0:
                patched.setattr(worker._producer, "commit", dying(worker._producer.commit, after=killed % 2 == 0))
            try:
                idle = 0 if worker.turn(world.stop) else idle + 1
            except Crash:
                killed += 1
                worker.abandon()
                worker = world.worker()
    worker.close()
    server.close()
    expected = {row["id"]: row["name"] for row in api.rows.values()}
    found = world.state()
    missing, extra = expected.keys() - found.keys(), found.keys() - expected.keys()
    assert (len(missing), len(extra), seed) == (0, 0, seed)
    assert found == expected, seed
    ids = [json.loads(record.value)[1] for record in world.records() if record.value is not None]
    record_property(
        "summary",
        f"deletions by {deletions_by}: {len(expected)} rows, {CHANGES} changes, {killed} kills, {len(api.asked)} "
        f"requests, {api.era} times cursors forgotten, {api.tokens} tokens: 0 missing, 0 extra; "
        f"{len(ids) - len(set(ids))} of {len(ids)} events came again, with the same id; "
        f"{time.monotonic() - began_s:.0f} s",
    )
