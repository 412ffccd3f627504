"""What passes and backends find out about a model, and change nothing."""
