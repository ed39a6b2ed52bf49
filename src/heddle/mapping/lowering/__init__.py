"""From a checked mapping and one writer's schema to a plan over bytes."""

from heddle.mapping.lowering.lowered import FieldPath, Lowered, lower

__all__ = ["FieldPath", "Lowered", "lower"]
