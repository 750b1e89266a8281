"""Programs that copy `events` by other means, each run as a process of its own."""
