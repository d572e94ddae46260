"""Settings, the clock and the dated rulebooks."""
