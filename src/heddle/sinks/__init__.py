"""One file per kind of sink."""
