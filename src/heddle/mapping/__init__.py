"""Field rules as data: checked, compiled to a function, printed as the mapping document."""
