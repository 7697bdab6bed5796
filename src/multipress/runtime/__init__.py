"""Open an artifact and predict, without torch."""
