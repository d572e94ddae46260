"""Kafka and Redis: transport, topics, state, barrier, ownership and the embedded servers."""
