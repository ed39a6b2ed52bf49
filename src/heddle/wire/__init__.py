"""Mappings from Avro bytes to Avro bytes: the plan, and the engines that run it. No object is made per value."""
