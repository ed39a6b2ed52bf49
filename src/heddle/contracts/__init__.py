"""Contracts: Avro schemas with owners, and the codecs that hold data to them."""
