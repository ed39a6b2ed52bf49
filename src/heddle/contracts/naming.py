"""Names in contract files, and the Python names made of them."""

from __future__ import annotations

import keyword


def python_name(field: str) -> str:
    """A field's attribute name: the field's own, with an underscore after a Python keyword."""
    return f"{field}_" if keyword.iskeyword(field) else field


def record_name(name: str) -> str:
    """The record name that file `<name>.v<major>.avsc` must hold: `sales-order` gives `SalesOrder`."""
    return "".join(part.capitalize() for part in name.split("-"))


def type_name(full_name: str, major: int) -> str:
    """The Python name of a named type: its short name, with the major version from 2 on."""
    short = full_name.rpartition(".")[2]
    return short if major == 1 else f"{short}V{major}"
