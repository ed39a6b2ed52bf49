"""Mutual TLS: the certificate that a polled API wants to see, its renewal, and its refusal."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from rest_harness import deals, names, source
from rest_server import START_S, Api, RestServer

from heddle import ClientCertificate
from heddle.errors import AuthError, DependencyDownError, UsageError

Start = Callable[[ssl.TLSVersion], RestServer]


@pytest.fixture
def api() -> Api:
    made = Api()
    for number in range(5):
        made.put(number, f"n{number}", at=START_S - 5)
    return made


@pytest.fixture
def authority() -> Authority:
    return Authority.make("Tests")


@pytest.fixture
def start(api: Api, authority: Authority, tmp_path: Path) -> Iterator[Start]:
    """Servers that take clients with a certificate of this authority only."""
    files = authority.issue(tmp_path, "server")
    started: list[RestServer] = []

    def make(newest: ssl.TLSVersion) -> RestServer:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(authority.write(tmp_path)))
        context.load_cert_chain(files.certificate, files.key)
        context.verify_mode = ssl.CERT_REQUIRED
        context.maximum_version = newest
        started.append(RestServer(api, context))
        return started[-1]

    yield make
    for each in started:
        each.close()


def opened(server: RestServer, tmp_path: Path, certificate: ClientCertificate | None) -> Any:
    declared = source(server, deals(), ca_file=str(tmp_path / "Tests.pem"), client_certificate=certificate)
    puller = declared.open()
    puller.begin(None)
    return puller


def test_a_client_certificate_is_shown_and_read_anew_when_its_files_change(
    api: Api, authority: Authority, start: Start, tmp_path: Path
) -> None:
    shown = tmp_path / "tls.pem"
    shown.write_bytes(authority.issue(tmp_path, "first").with_key.read_bytes())
    server = start(ssl.TLSVersion.TLSv1_3)
    api.headers = {"Connection": "close"}
    puller = opened(server, tmp_path, ClientCertificate(certificate_file=str(shown)))
    assert len(names(puller)) == 5
    assert {asked.peer for asked in api.asked} == {"first"}
    shown.write_bytes(authority.issue(tmp_path, "second").with_key.read_bytes())
    names(puller)
    assert api.asked[-1].peer == "second"
    puller.close()


def test_a_certificate_that_the_api_does_not_take_stops_the_source(api: Api, start: Start, tmp_path: Path) -> None:
    """In TLS 1.3 a client may send before the server has said no, and the reset that follows may overtake the alert."""
    server = start(ssl.TLSVersion.TLSv1_2)
    stranger = Authority.make("Others").issue(tmp_path, "stranger")
    puller = opened(server, tmp_path, ClientCertificate(certificate_file=str(stranger.with_key)))
    with pytest.raises(AuthError, match="does not take our certificate"):
        names(puller)
    puller.close()
    assert api.asked == []


def test_a_server_that_no_authority_of_ours_knows_is_not_asked(api: Api, start: Start, tmp_path: Path) -> None:
    server = start(ssl.TLSVersion.TLSv1_3)
    Authority.make("Tests").write(tmp_path)  # of the same name, with another key
    puller = opened(server, tmp_path, None)
    with pytest.raises(DependencyDownError, match="does not answer: ConnectError"):
        names(puller)
    puller.close()
    assert api.asked == []


def test_files_that_are_no_certificate_are_known_at_the_start(
    authority: Authority, start: Start, tmp_path: Path
) -> None:
    files = authority.issue(tmp_path, "client")
    server = start(ssl.TLSVersion.TLSv1_3)
    with pytest.raises(UsageError, match="client certificate cannot be loaded"):
        opened(server, tmp_path, ClientCertificate(certificate_file=str(files.certificate)))
