"""Held calls: received, pinned, performed. What may be done is decided elsewhere."""
