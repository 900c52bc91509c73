"""The outside world: Kafka, Redis, telemetry."""
