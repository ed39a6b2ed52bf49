"""Contracts: what events look like, who owns them, and the one codec that both sides obey."""

from heddle.contracts.codec import AvroCodec, Codec, body_hash
from heddle.contracts.codec_any import decode_any
from heddle.contracts.confluent import ConfluentRegistry
from heddle.contracts.contract import Contract, contract, contract_of, load_contract, load_contracts
from heddle.contracts.memory import MemoryRegistry
from heddle.contracts.registry import IncompatibleError, NotRegisteredError, Registry

__all__ = [
    "AvroCodec",
    "Codec",
    "ConfluentRegistry",
    "Contract",
    "IncompatibleError",
    "MemoryRegistry",
    "NotRegisteredError",
    "Registry",
    "body_hash",
    "contract",
    "contract_of",
    "decode_any",
    "load_contract",
    "load_contracts",
]
