"""Change data capture: the streams of a replication slot, loaded once and then followed."""
