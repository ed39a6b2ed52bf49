"""What a contract says beside its schema: owner, key, topic. One TOML file next to each .avsc file."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from heddle.errors import ContractError

_STRICT = ConfigDict(frozen=True, extra="forbid", strict=True)

FieldPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")]


class TopicSettings(BaseModel):
    """How the contract's topic is made by `heddle apply`."""

    model_config = _STRICT

    partitions: int = Field(
        default=6, ge=1, le=10_000, description="fixed once the topic exists: growing it moves keys"
    )
    retention_hours: int = Field(default=168, ge=-1, description="-1 = kept for ever")
    cleanup: Literal["delete", "compact"] = "delete"
    max_message_bytes: int = Field(default=2**20, ge=1024, le=2**27, description="largest encoded event")


class Metadata(BaseModel):
    """The sidecar file `<name>.v<major>.toml`. Unknown keys are refused."""

    model_config = _STRICT

    owner: str = Field(min_length=1, description="the team that answers for this contract")
    description: str = Field(min_length=1)
    key: tuple[FieldPath, ...] = Field(min_length=1, strict=False, description="fields that make the record key")
    tenant: FieldPath | None = Field(default=None, description="field that names the tenant; without it: default")
    classified: tuple[FieldPath, ...] = Field(
        default=(), strict=False, description="fields that people see masked; lists are passed through: lines.account"
    )
    topic: TopicSettings = Field(default_factory=lambda: TopicSettings())


def load_metadata(path: Path) -> Metadata:
    """Raises `ContractError` naming the file and the key."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        return Metadata.model_validate(table)
    except FileNotFoundError:
        raise ContractError(
            f"{path} is missing", hint='every contract needs one with at least owner, description and key = ["field"]'
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ContractError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"]))
        known = ", ".join(Metadata.model_fields)
        raise ContractError(f"{path}: key {key}: {first['msg']}", hint=f"known keys: {known}") from error
