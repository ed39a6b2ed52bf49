"""AWS Secrets Manager through boto3: against a stand-in on a socket, and against moto where that is installed
(`make stores-test`). Never against AWS."""

from __future__ import annotations

import importlib.util
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import pytest
from secret_http import Answer, Request, serving

from heddle.errors import AuthError, DependencyDownError, UsageError
from heddle.secrets.provider import OVERLAP_S
from heddle.secrets.providers.aws import Aws, AwsOptions

HAS_MOTO = importlib.util.find_spec("moto") is not None


class Store(Protocol):
    def put(self, name: str, value: str | bytes) -> str:
        """The new version's id."""

    def delete(self, name: str) -> None: ...


class Fake:
    """Speaks the JSON protocol, for GetSecretValue alone. `refusal`: answered to everything, (status, code)."""

    def __init__(self) -> None:
        self.secrets: dict[str, list[dict[str, Any]]] = {}
        self.deleted: set[str] = set()
        self.refusal: tuple[int, str] | None = None
        self.asked: list[str] = []

    def put(self, name: str, value: str | bytes) -> str:
        kind = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": "aGk="}
        version = {"Name": name, "VersionId": str(uuid.uuid4()), "CreatedDate": time.time(), **kind}
        self.secrets.setdefault(name, []).append(version)
        return str(version["VersionId"])

    def delete(self, name: str) -> None:
        self.deleted.add(name)

    def answer(self, request: Request) -> Answer:
        assert request.headers["x-amz-target"] == "secretsmanager.GetSecretValue"
        assert "/secretsmanager/aws4_request" in request.headers["authorization"]
        if self.refusal is not None:
            return _error(*self.refusal)
        wanted = request.json()
        name, stage = wanted["SecretId"], wanted["VersionStage"]
        self.asked.append(f"{name} {stage}")
        if name in self.deleted:
            return _error(400, "InvalidRequestException")
        versions = self.secrets.get(name, [])[:: -1 if stage == "AWSCURRENT" else 1]
        place = {"AWSCURRENT": 0, "AWSPREVIOUS": len(versions) - 2}[stage]
        if not 0 <= place < len(versions):
            return _error(400, "ResourceNotFoundException")
        return Answer(200, versions[place])


def _error(status: int, code: str) -> Answer:
    return Answer(status, {"__type": code, "Message": "no"}, {"content-type": "application/x-amz-json-1.1"})


class Moto:
    def __init__(self) -> None:
        import boto3

        self._client = boto3.client("secretsmanager", region_name="eu-central-1")

    def put(self, name: str, value: str | bytes) -> str:
        kind = {"SecretString": value} if isinstance(value, str) else {"SecretBinary": value}
        try:
            made = self._client.create_secret(Name=name, **kind)
        except self._client.exceptions.ResourceExistsException:
            made = self._client.put_secret_value(SecretId=name, **kind)
        return str(made["VersionId"])

    def delete(self, name: str) -> None:
        self._client.delete_secret(SecretId=name)


@contextmanager
def moto() -> Iterator[Moto]:
    from moto import mock_aws

    with mock_aws():
        yield Moto()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of this machine's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    made = Fake()
    with serving(made.answer) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
        yield made


@pytest.fixture(params=["fake", *(["moto"] if HAS_MOTO else [])])
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    if request.param == "fake":
        yield request.getfixturevalue("fake")
    else:
        with moto() as made:
            yield made


def aws(**options: Any) -> Aws:
    return Aws(AwsOptions(provider="aws", **{"region": "eu-central-1", **options}))


def test_a_secret_is_the_text_under_its_name_with_its_version(store: Store) -> None:
    version = store.put("app/ledger/dsn", "postgresql://one")
    found = aws(prefix="app/").look_up("ledger/dsn")
    assert found is not None
    assert (found.text, found.version, found.previous) == ("postgresql://one", version, "")


def test_a_new_version_is_found_and_the_one_before_still_counts(store: Store) -> None:
    store.put("rotated", "old")
    version = store.put("rotated", "new")
    found = aws().look_up("rotated")
    assert found is not None
    assert (found.text, found.version, found.previous) == ("new", version, "old")


def test_the_one_before_counts_for_an_hour_at_most(fake: Fake) -> None:
    fake.put("aged", "old")
    fake.put("aged", "new")
    fake.secrets["aged"][-1]["CreatedDate"] = time.time() - OVERLAP_S - 1
    found = aws().look_up("aged")
    assert found is not None
    assert found.previous == ""
    assert fake.asked == ["aged AWSCURRENT"]


def test_what_is_not_there_or_was_deleted_is_missing(store: Store) -> None:
    store.put("gone", "value")
    store.delete("gone")
    assert aws().look_up("gone") is None
    assert aws().look_up("never") is None


def test_what_is_binary_is_refused_with_its_reason(store: Store) -> None:
    store.put("binary", b"hi")
    with pytest.raises(UsageError, match="secret binary is binary"):
        aws().look_up("binary")


@pytest.mark.parametrize("code", ["AccessDeniedException", "UnrecognizedClientException", "ExpiredTokenException"])
def test_a_refusal_says_what_to_allow(fake: Fake, code: str) -> None:
    fake.refusal = (400, code)
    with pytest.raises(AuthError, match=f"AWS refuses secret any: {code}") as refused:
        aws().look_up("any")
    assert "secretsmanager:GetSecretValue" in refused.value.hint


@pytest.mark.parametrize(("status", "code"), [(500, "InternalServiceError"), (400, "ThrottlingException")])
def test_a_service_that_cannot_answer_is_down(fake: Fake, status: int, code: str) -> None:
    fake.refusal = (status, code)
    with pytest.raises(DependencyDownError, match=f"AWS Secrets Manager does not answer for any: {code}"):
        aws().look_up("any")


def test_an_endpoint_that_nobody_serves_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda _: Answer(200)) as url:
        pass
    monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", url)
    with pytest.raises(DependencyDownError, match="EndpointConnectionError"):
        aws().look_up("any")


def test_without_credentials_or_region_it_is_said(monkeypatch: pytest.MonkeyPatch, fake: Fake) -> None:
    with pytest.raises(UsageError, match="no region"):
        aws(region="").look_up("any")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(AuthError, match="no usable credentials"):
        aws().look_up("any")
    assert not fake.asked
