"""One behaviour suite for both registries, and how the real client meets one that is down, shut or no registry."""

from __future__ import annotations

import json
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from building import make_contract, record, write_contract
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from heddle.contracts import (
    AvroCodec,
    ConfluentRegistry,
    Contract,
    IncompatibleError,
    MemoryRegistry,
    NotRegisteredError,
    Registry,
    load_contract,
)
from heddle.errors import AuthError, DependencyDownError, UnknownSchemaIdError, UsageError
from heddle.secrets import reference
from heddle.secrets.cached import Cached
from heddle.secrets.provider import Found
from heddle.settings import Settings

DATA = Path(__file__).parent / "data"
# Apicurio as it is, where it differs from the published contract: an unset subject level is 40401, not 40408.
APICURIO_CODES = {40408: 40401}


@pytest.fixture(params=["memory", pytest.param("real", marks=pytest.mark.stack)])
def registry(request: pytest.FixtureRequest) -> Iterator[Registry]:
    if request.param == "memory":
        yield MemoryRegistry()
        return
    stack = request.getfixturevalue("stack")
    with closing(ConfluentRegistry(Settings(registry_url=stack.registry_url))) as real:
        yield real


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Contract]:
    """Versions of one contract whose subject no other test has."""
    domain = f"t{uuid4().hex[:12]}"
    folders = iter(range(100))

    def made(*fields: Any) -> Contract:
        schema = record([("id", "string"), *fields], namespace=f"{domain}.v1")
        return load_contract(write_contract(tmp_path / str(next(folders)), schema, f"{domain}/thing.v1"))

    return made


def test_registering_twice_is_registering_once(registry: Registry, make: Callable[..., Contract]) -> None:
    contract = make()
    assert registry.versions(contract.subject) == []
    schema_id = registry.register(contract)
    assert registry.register(contract) == schema_id == registry.id_of(contract)
    assert registry.versions(contract.subject) == [1]
    assert registry.schema(schema_id) == contract.source
    assert registry.schema_of(contract.subject, 1) == contract.source


def test_asking_for_an_id_never_registers(registry: Registry, make: Callable[..., Contract]) -> None:
    contract = make()
    with pytest.raises(NotRegisteredError) as caught:
        registry.id_of(contract)
    assert "heddle apply" in caught.value.hint
    assert registry.versions(contract.subject) == []
    registry.register(contract)
    with pytest.raises(NotRegisteredError):
        registry.id_of(make(("n", "int")))


def test_compatible_versions_follow_each_other(registry: Registry, make: Callable[..., Contract]) -> None:
    first, second = make(), make({"name": "n", "type": "int", "default": 0})
    one = registry.register(first)
    registry.set_compatibility(first.subject)
    assert registry.check(second) == []
    two = registry.register(second)
    assert one != two
    assert registry.versions(first.subject) == [1, 2]
    assert (registry.id_of(first), registry.id_of(second)) == (one, two)
    framed = AvroCodec[Any](first, registry).encode_dict({"id": "x"})
    assert AvroCodec[Any](second, registry).decode_dict(framed) == {"id": "x", "n": 0}


def test_incompatible_versions_are_refused_with_the_field(registry: Registry, make: Callable[..., Contract]) -> None:
    first, second = make(), make(("n", "int"))
    registry.register(first)
    registry.set_compatibility(first.subject)
    assert any("n" in problem for problem in registry.check(second))
    with pytest.raises(IncompatibleError) as caught:
        registry.register(second)
    assert first.subject in str(caught.value)
    assert "Exception" not in str(caught.value)
    assert registry.versions(first.subject) == [1]


def test_a_changed_scale_is_refused_by_us_where_registries_let_it_through(
    registry: Registry, make: Callable[..., Contract]
) -> None:
    def amount(scale: int) -> tuple[str, Any]:
        return "amount", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": scale}

    first, second = make(amount(2)), make(amount(4))
    registry.register(first)
    registry.set_compatibility(first.subject)
    assert registry.check(second) == ["amount: decimal(9,2) cannot be read as decimal(9,4)"]


def test_levels_are_set_by_subject(registry: Registry, make: Callable[..., Contract]) -> None:
    contract = make()
    registry.register(contract)
    # Apicurio reports its global level for a subject that has none of its own.
    assert registry.compatibility(contract.subject) in (None, "BACKWARD")
    registry.set_compatibility(contract.subject, "FULL")
    assert registry.compatibility(contract.subject) == "FULL"
    registry.set_compatibility(contract.subject)
    assert registry.compatibility(contract.subject) == "BACKWARD"


def test_what_does_not_exist(registry: Registry, make: Callable[..., Contract]) -> None:
    contract = make()
    with pytest.raises(UnknownSchemaIdError):
        registry.schema(2**31 - 1)
    with pytest.raises(NotRegisteredError):
        registry.schema_of(contract.subject, 1)
    assert registry.check(contract) == []


@pytest.mark.stack
@pytest.mark.parametrize(
    "scenario", json.loads((DATA / "registry_scenarios.json").read_text())["scenarios"], ids=lambda s: s["name"]
)
def test_the_registry_we_ship_with_keeps_the_published_contract(stack: Any, scenario: dict[str, Any]) -> None:
    subject = f"scenario-{uuid4().hex}"
    bound: dict[str, Any] = {"s": subject}
    for step in scenario["steps"]:
        path = _fill(step["path"], bound)
        response = httpx2.request(
            step["method"],
            stack.registry_url + path,
            json=step["body"],
            headers={"Content-Type": "application/vnd.schemaregistry.v1+json"},
        )
        assert response.status_code == step["status"], (step, response.text)
        _compare(step["expect"], response.json(), bound)


def _fill(text: str, bound: dict[str, Any]) -> str:
    for name, value in bound.items():
        text = text.replace(f"{{{name}}}", str(value))
    return text


def _compare(expected: Any, got: Any, bound: dict[str, Any]) -> None:
    if not isinstance(expected, dict):
        assert got == expected
        return
    for key, value in expected.items():
        if key.endswith("~json"):
            assert json.loads(got[key[:-5]]) == json.loads(value)
        elif isinstance(value, str) and value.startswith("@"):
            assert bound.setdefault(value[1:], got[key]) == got[key]
        elif key == "error_code":
            assert got[key] in (value, APICURIO_CODES.get(value))
        else:
            assert got[key] == (_fill(value, bound) if isinstance(value, str) else value)


@dataclass
class Answers:
    """A server that says what a test wants, and remembers what it was asked."""

    status: int = 200
    body: bytes = b"{}"
    delay_s: float = 0.0
    wanted: str | None = None
    """The only credentials that are not answered with 401."""
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)


@contextmanager
def serving(answers: Answers, certificate: Path | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answers.requests.append((self.command, self.path, self.headers.get("Authorization")))
            if answers.delay_s:
                answers.released.wait(answers.delay_s)
            refused = answers.wanted not in (None, self.headers.get("Authorization"))
            self.send_response(401 if refused else answers.status)
            self.send_header("Content-Length", str(len(answers.body)))
            self.end_headers()
            self.wfile.write(answers.body)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, *args: Any) -> None:
            """Silent."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """Clients that give up, and handshakes that fail, are what these tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    if certificate is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{server.server_address[1]}"
    finally:
        answers.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, b'{"error_code": 50001}', DependencyDownError),
        (503, b"<html>", DependencyDownError),
        (429, b"{}", DependencyDownError),
        (401, b"", AuthError),
        (403, b"", AuthError),
        (200, b"<html>a login page</html>", DependencyDownError),
        (404, b'{"error_code": 404}', DependencyDownError),
        (404, b"<html>", DependencyDownError),
        (302, b"{}", DependencyDownError),
        (404, b'{"error_code": 40403}', UnknownSchemaIdError),
    ],
)
def test_every_answer_has_its_class(status: int, body: bytes, error: type[Exception]) -> None:
    """A registry that is not well must never look like a schema that does not exist: records would become dead."""
    with serving(Answers(status, body)) as url, closing(ConfluentRegistry(Settings(registry_url=url))) as registry:
        with pytest.raises(error) as caught:
            registry.schema(1)
        assert type(caught.value) is error


def test_a_registry_that_does_not_answer_in_time() -> None:
    answers = Answers(delay_s=30)
    with serving(answers) as url, closing(ConfluentRegistry(Settings(registry_url=url), timeout_s=0.1)) as registry:
        started = time.monotonic()
        with pytest.raises(DependencyDownError):
            registry.schema(1)
        assert time.monotonic() - started < 15
        assert len(answers.requests) == 3


def test_a_registry_that_is_not_there() -> None:
    with closing(ConfluentRegistry(Settings(registry_url="http://127.0.0.1:1"))) as registry:
        with pytest.raises(DependencyDownError) as caught:
            registry.schema(1)
        assert "127.0.0.1:1" in str(caught.value)


def test_credentials_are_sent_and_never_shown() -> None:
    answers = Answers(401)
    with serving(answers) as url:
        settings = Settings(registry_url=url, registry_user="ada", registry_password="hunter2")  # type: ignore[arg-type]
        with closing(ConfluentRegistry(settings)) as registry, pytest.raises(AuthError) as caught:
            registry.schema(1)
    assert answers.requests[0][2] == "Basic YWRhOmh1bnRlcjI="
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"


class Store:
    """Of secrets, behind the cache that every store is behind."""

    name = "store"

    def __init__(self, password: str) -> None:
        self.password = password
        self.asked = 0

    def look_up(self, _: str) -> Found | None:
        self.asked += 1
        return Found(self.password)

    def advice(self, name: str) -> str:
        return f"put {name} there"


def test_a_password_that_is_a_secret_may_rotate(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is refused is asked for anew and sent again, if it is another."""
    store = Store("first-one")
    cached = Cached(store, refresh_s=3600)
    monkeypatch.setattr(reference, "providers", lambda: (cached,))
    answers = Answers(body=b'{"schema": "\\"string\\""}', wanted=basic("first-one"))
    with serving(answers) as url:
        settings = Settings(registry_url=url, registry_user="ada", registry_password_secret="registry/password")
        with closing(ConfluentRegistry(settings)) as registry:
            registry.schema(1)
            answers.wanted = basic("second-one")
            store.password = "second-one"
            registry.schema(2)
            assert store.asked == 2
            answers.wanted = basic("third-one")
            with pytest.raises(AuthError):
                registry.schema(3)
    sent = [basic("first-one")] * 2 + [basic("second-one")] * 2
    assert [request[2] for request in answers.requests] == sent


def basic(password: str) -> str:
    return f"Basic {b64encode(f'ada:{password}'.encode()).decode()}"


def test_a_registry_behind_private_tls_is_trusted_by_its_ca_alone(tmp_path: Path) -> None:
    authority, certificate = _certificates(tmp_path)
    answers = Answers(body=b'{"schema": "\\"string\\""}')
    with serving(answers, certificate) as url:
        with closing(ConfluentRegistry(Settings(registry_url=url, registry_ca=str(authority)))) as registry:
            assert registry.schema(1) == {"type": "string"}
        with closing(ConfluentRegistry(Settings(registry_url=url))) as registry, pytest.raises(DependencyDownError):
            registry.schema(1)
    with pytest.raises(UsageError, match="HEDDLE_REGISTRY_CA"):
        ConfluentRegistry(Settings(registry_url=url, registry_ca=str(tmp_path / "gone.pem")))


def _certificates(folder: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1 that signs itself, alone and with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "ca.pem").write_bytes(certificate)
    (folder / "server.pem").write_bytes(secret + certificate)
    return folder / "ca.pem", folder / "server.pem"


def test_schemas_are_kept_and_a_flood_of_unknown_ids_is_not_passed_on() -> None:
    answers = Answers(body=b'{"schema": "\\"string\\""}')
    with serving(answers) as url, closing(ConfluentRegistry(Settings(registry_url=url))) as registry:
        for _ in range(5):
            assert registry.schema(1) == {"type": "string"}
        assert len(answers.requests) == 1
        answers.status, answers.body = 404, b'{"error_code": 40403, "message": "Schema not found"}'
        for _ in range(5):
            with pytest.raises(UnknownSchemaIdError):
                registry.schema(2)
        assert len(answers.requests) == 2


def test_a_batch_does_not_settle_while_the_registry_is_down(tmp_path: Path) -> None:
    """`DependencyDownError` passes through a batch; it is no failure of a record."""
    contract = make_contract(tmp_path, [])
    with closing(ConfluentRegistry(Settings(registry_url="http://127.0.0.1:1"))) as registry:
        codec = AvroCodec[Any](contract, registry)
        with pytest.raises(DependencyDownError):
            codec.decode_dict_batch([b"\x00\x00\x00\x00\x01\x02x"])
        with pytest.raises(DependencyDownError):
            codec.encode_dict({"id": "x"})
