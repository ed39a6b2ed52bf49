"""How people reach operations from a shell."""
