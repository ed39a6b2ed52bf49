"""Refresh tokens that rotate: the newest is in a file before anything is asked with what came with it."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rest_harness import deals, names, source
from rest_server import START_S, Api, Asked, Reply, RestServer

from heddle.errors import AuthError, DependencyDownError
from heddle.http.oauth import RefreshToken
from heddle.secrets import redact, secret


class Vendor:
    """Each refresh token is good once; a second use of one ends them all, as vendors do."""

    def __init__(self, api: Api, kept: Path) -> None:
        self.api = api
        self.kept = kept
        self.valid = "first-refresh-token"
        self.number = 0
        self.unkept: list[str] = []
        api.before = self.answer

    def answer(self, asked: Asked) -> Reply | None:
        if asked.path == "/v1/token":
            if asked.form["refresh_token"] != self.valid:
                self.valid = ""
                return 400, {}, {"error": "invalid_grant"}
            self.number += 1
            self.valid, self.api.token = f"refresh-token-{self.number}", f"access-token-{self.number}"
            return 200, {}, {"access_token": self.api.token, "refresh_token": self.valid, "expires_in": 3600}
        if self.valid and self.valid not in self.kept.read_text():
            self.unkept.append(self.valid)
        return None


@pytest.fixture
def vendor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Vendor, RestServer, RefreshToken]]:
    monkeypatch.setenv("HEDDLE_SECRET_CRM_CONSENT", "first-refresh-token")
    api = Api()
    for number in range(5):
        api.put(number, f"n{number}", at=START_S - 5)
    server = RestServer(api)
    auth = RefreshToken(
        name="crm", token_url=f"{server.url}/v1/token", client_id="heddle", first=secret("crm/consent"), folder=tmp_path
    )
    yield Vendor(api, tmp_path / "crm.json"), server, auth
    server.close()


def opened(server: RestServer, auth: RefreshToken) -> Any:
    puller = source(server, deals(), auth=auth).open()
    puller.begin(None)
    return puller


def test_the_next_refresh_token_is_kept_before_the_access_token_is_used(
    vendor: tuple[Vendor, RestServer, RefreshToken],
) -> None:
    api_vendor, server, auth = vendor
    puller = opened(server, auth)
    assert len(names(puller)) == 5
    api_vendor.api.token = "ended"
    names(puller)
    puller.close()
    assert api_vendor.unkept == []
    assert api_vendor.number == 2
    assert api_vendor.kept.stat().st_mode & 0o777 == 0o600
    successor = opened(server, auth)  # a process that starts anew knows the newest
    assert len(names(successor)) == 5
    successor.close()
    assert json.loads(api_vendor.kept.read_text())["refresh_token"] == "refresh-token-3"


def test_an_answer_that_is_lost_stops_the_source_and_a_new_consent_starts_it(
    vendor: tuple[Vendor, RestServer, RefreshToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    api_vendor, server, auth = vendor
    puller = opened(server, auth)
    names(puller)
    api_vendor.valid, api_vendor.api.token = "never told", "ended"
    with pytest.raises(AuthError, match="invalid_grant: the refresh token crm has ended") as caught:
        names(puller)
    assert "consent anew, and give that token as secret crm/consent" in str(caught.value.hint)
    puller.close()
    api_vendor.valid = "second-consent-token"
    monkeypatch.setenv("HEDDLE_SECRET_CRM_CONSENT", "second-consent-token")
    again = opened(server, auth)
    assert len(names(again)) == 5
    again.close()


def test_the_next_refresh_token_is_kept_from_an_answer_that_is_no_good(
    vendor: tuple[Vendor, RestServer, RefreshToken],
) -> None:
    api_vendor, server, auth = vendor
    answer = api_vendor.answer

    def wrong(asked: Asked) -> Reply | None:
        reply = answer(asked)
        return reply and (reply[0], reply[1], reply[2] | {"token_type": "mac"})

    api_vendor.api.before = wrong
    puller = opened(server, auth)
    with pytest.raises(AuthError, match="no bearer token"):
        names(puller)
    puller.close()
    api_vendor.api.before = answer
    again = opened(server, auth)
    assert len(names(again)) == 5
    again.close()


def test_a_token_is_waited_for_longer_than_a_row(vendor: tuple[Vendor, RestServer, RefreshToken]) -> None:
    """What a slow token endpoint answers to nobody is lost, and the consent with it."""
    api_vendor, server, auth = vendor
    answer = api_vendor.answer

    def slow(asked: Asked) -> Reply | None:
        if asked.path == "/v1/token":
            time.sleep(0.9)
        return answer(asked)

    api_vendor.api.before = slow
    puller = source(server, deals(), auth=auth, timeout_s=0.6).open()
    puller.begin(None)
    assert len(names(puller)) == 5
    puller.close()


@pytest.mark.parametrize("lifetime", [None, 0, -5, "soon", "", True, 1e300, "9" * 400], ids=str)
def test_a_lifetime_that_says_nothing_ends_no_token_at_once(
    vendor: tuple[Vendor, RestServer, RefreshToken], lifetime: object
) -> None:
    api_vendor, server, auth = vendor
    answer = api_vendor.answer

    def odd(asked: Asked) -> Reply | None:
        reply = answer(asked)
        return reply and (reply[0], reply[1], reply[2] | {"expires_in": lifetime})

    api_vendor.api.before = odd
    puller = opened(server, auth)
    assert len(names(puller)) == 5
    assert api_vendor.number == 1
    puller.close()


def test_one_process_at_a_time_renews(
    vendor: tuple[Vendor, RestServer, RefreshToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, server, auth = vendor
    monkeypatch.setattr("heddle.http.oauth.LOCK_WAIT_S", 0.05)
    other = auth.open()
    assert other.renewal() is not None  # asked for, and not answered yet
    puller = opened(server, auth)
    with pytest.raises(DependencyDownError, match="another process"):
        puller.pull(1000, 0.0)
    del other
    assert len(names(puller)) == 5
    puller.close()


def test_the_next_refresh_token_is_durable_before_it_counts_and_the_file_is_whole_at_any_time(
    vendor: tuple[Vendor, RestServer, RefreshToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    api_vendor, server, auth = vendor
    synced: list[tuple[str, bool]] = []
    sync = os.fsync

    def watched(descriptor: int) -> None:
        kept = api_vendor.kept.read_text() if api_vendor.kept.exists() else ""
        synced.append((Path(os.readlink(f"/proc/self/fd/{descriptor}")).name, api_vendor.valid in kept))
        sync(descriptor)

    monkeypatch.setattr("heddle.http.oauth.os.fsync", watched)
    puller = opened(server, auth)
    names(puller)
    # Its content first, under another name; then the name.
    # Twice: before the token is spent the one that is known shows that there is room.
    assert synced == [("crm.new", False), (api_vendor.kept.parent.name, True)] * 2

    def full(_: int) -> None:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr("heddle.http.oauth.os.fsync", full)
    api_vendor.api.token = "ended"
    with pytest.raises(OSError, match="no space"):
        names(puller)
    assert json.loads(api_vendor.kept.read_text())["refresh_token"] == "refresh-token-1"
    assert api_vendor.number == 1, "nothing was spent that could not be kept"
    puller.close()
    monkeypatch.setattr("heddle.http.oauth.os.fsync", sync)
    again = opened(server, auth)
    assert len(names(again)) == 5
    again.close()


def test_nothing_of_it_is_told(
    vendor: tuple[Vendor, RestServer, RefreshToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    api_vendor, server, auth = vendor
    monkeypatch.setenv("HEDDLE_SECRET_CRM_CLIENT", "the-clients-secret")
    folder = api_vendor.kept.parent / "new"
    auth = replace(auth, client_secret=secret("crm/client"), folder=folder)
    api_vendor.kept, api_vendor.number = folder / "crm.json", 70  # tokens that no other test has seen
    puller = opened(server, auth)
    names(puller)
    puller.close()
    assert folder.stat().st_mode & 0o777 == 0o700
    packed = base64.b64encode(b"heddle:the-clients-secret").decode()
    for told in ("refresh-token-71", "access-token-71", packed):
        assert told not in redact(f"it was {told} that did it")


def test_an_access_token_that_has_ended_is_renewed_before_it_is_refused(
    vendor: tuple[Vendor, RestServer, RefreshToken], monkeypatch: pytest.MonkeyPatch
) -> None:
    api_vendor, server, auth = vendor
    now = [1_000.0]
    monkeypatch.setattr("heddle.http.oauth.time", SimpleNamespace(monotonic=lambda: now[0]))
    puller = opened(server, auth)
    names(puller)
    now[0] += 3_569
    names(puller)
    assert api_vendor.number == 1
    now[0] += 1
    names(puller)
    assert api_vendor.number == 2
    puller.close()
