"""Reading dead letters for people, and what people ask of their owners."""
