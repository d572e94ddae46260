"""One stream agent a topic: read a batch, call the rules, publish."""
