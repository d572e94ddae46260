"""The guard over HTTP, for diallers without Kafka and for those who watch."""
