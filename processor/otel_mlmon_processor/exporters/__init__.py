"""From the snapshot to the outside."""
