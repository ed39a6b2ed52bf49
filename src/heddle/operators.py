"""Operators: who may command a subscription. The key signs, and its name is the actor."""
