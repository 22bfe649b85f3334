"""What a session costs and does: FLOPs, bytes, clocks, events, machine and versions."""
