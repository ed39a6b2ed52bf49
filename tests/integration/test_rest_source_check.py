"""What `heddle check` says of a polled API: its announcements, and credentials that stand in the source."""

from __future__ import annotations

import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cli_project import RUN, record, write, write_contract
from rest_server import Api, RestServer

SOURCE = """
from pathlib import Path

from heddle import ApiKey, Resource, RestSource, secret
from heddle.http.oauth import RefreshToken
from heddle.sources.rest import Cursor, HighWater
from schemas.{prefix} import Thing

crm = RestSource(
    "crm", base_url="{url}/v1", version=None, auth={auth}, emits=Thing, owner="testers",
    resources=[
        Resource(
            name, path=name, rows="data", paging=Cursor("cursor", at="next"), follow=HighWater(changed="updatedAt"),
            convert=lambda row: [],
        )
        for name in ("deals", "deals/deleted")
    ],
)
"""
OUTBOX = """
from heddle import OutboxSource
from schemas.{prefix} import Thing

crm = OutboxSource("crm", dsn="postgresql://heddle@a-host/crm", emits=Thing, owner="testers")
"""
Check = Callable[..., tuple[int, list[dict[str, str]]]]


@pytest.fixture
def api() -> Api:
    made = Api()
    for number in range(50):
        made.put(number, f"n{number}")
    return made


@pytest.fixture
def check(api: Api, tmp_path: Path) -> Iterator[Check]:
    prefix = f"p{uuid.uuid4().hex[:10]}"
    (tmp_path / "pyproject.toml").write_text('[tool.heddle]\nproject = "test"\n')
    write_contract(tmp_path, record([("id", "string")], namespace=f"{prefix}.v1"), f"{prefix}/thing.v1")
    write(tmp_path)
    (tmp_path / "producers").mkdir()
    server = RestServer(api)

    def run(auth: str, *options: str, source: str = SOURCE) -> tuple[int, list[dict[str, str]]]:
        text = source.format(prefix=prefix, url=server.url, auth=auth)
        (tmp_path / "producers" / "crm.py").write_text(text)
        env = {**os.environ, "HEDDLE_SECRET_CRM_KEY": "a-key-of-the-crm"}
        done = subprocess.run(
            [*RUN, "check", "--json", *options], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, 1), done.stderr
        assert "a-key-of-the-crm" not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout)["problems"]

    yield run
    server.close()


def test_what_an_api_announces_of_its_end_is_a_warning_with_its_dates(api: Api, check: Check) -> None:
    api.headers = {
        "Deprecation": "@1767225600",
        "Sunset": "Wed, 01 Jul 2026 00:00:00 GMT",
        "Link": '<https://crm.example/v2>; rel="deprecation"',
    }
    auth = 'ApiKey(secret("crm/key"))'
    assert check(auth) == (0, [])
    assert api.asked == []
    status, problems = check(auth, "--sources")
    assert status == 0
    assert [(problem["severity"], problem["message"], problem["hint"]) for problem in problems] == [
        (
            "warning",
            f"crm: /v1/{path} is deprecated since 2026-01-01 and answers no more from 2026-07-01 on",
            "see https://crm.example/v2",
        )
        for path in ("deals", "deals/deleted")
    ]
    assert [asked.path for asked in api.asked] == ["/v1/deals", "/v1/deals/deleted"]


def test_an_api_whose_token_rotates_is_not_asked(api: Api, check: Check) -> None:
    auth = 'RefreshToken(name="crm", token_url="https://crm.example/token", client_id="h", first=secret("crm/key"))'
    status, problems = check(auth, "--sources")
    assert (status, [problem["severity"] for problem in problems], api.asked) == (0, ["warning"], [])


def test_a_credential_in_the_source_is_a_problem_and_its_text_is_not_told(api: Api, check: Check) -> None:
    status, problems = check('ApiKey("a-key-of-the-crm")')
    assert status == 1
    assert [(problem["file"], problem["message"]) for problem in problems] == [
        ("producers/crm.py", "crm: value of its ApiKey stands in the source")
    ]


def test_an_address_in_the_source_is_a_problem_also_without_a_password(check: Check) -> None:
    status, problems = check("", source=OUTBOX)
    assert (status, [problem["message"] for problem in problems]) == (1, ["crm: its DSN stands in the source"])
