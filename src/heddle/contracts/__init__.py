"""Contracts: what events look like, who owns them, and the one codec that both sides obey."""

from heddle.contracts.contract import Contract as Contract
from heddle.contracts.contract import contract as contract
from heddle.contracts.contract import contract_of as contract_of
from heddle.contracts.contract import load_contract as load_contract
from heddle.contracts.contract import load_contracts as load_contracts
