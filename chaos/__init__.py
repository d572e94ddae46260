"""The storm: workers under load while they are killed, paused and cut off, and Kafka and Redis die; then the audit of what they did."""
