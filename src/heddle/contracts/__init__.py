"""Contracts: what events look like, who owns them, and the one codec that both sides obey."""

from heddle.contracts.codec import AvroCodec as AvroCodec
from heddle.contracts.codec import Codec as Codec
from heddle.contracts.codec import body_hash as body_hash
from heddle.contracts.codec_any import decode_any as decode_any
from heddle.contracts.confluent import ConfluentRegistry as ConfluentRegistry
from heddle.contracts.contract import Contract as Contract
from heddle.contracts.contract import contract as contract
from heddle.contracts.contract import contract_of as contract_of
from heddle.contracts.contract import load_contract as load_contract
from heddle.contracts.contract import load_contracts as load_contracts
from heddle.contracts.memory import MemoryRegistry as MemoryRegistry
from heddle.contracts.registry import IncompatibleError as IncompatibleError
from heddle.contracts.registry import NotRegisteredError as NotRegisteredError
from heddle.contracts.registry import Registry as Registry
