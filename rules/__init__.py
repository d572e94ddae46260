"""The pure core: events, facts of a number, the dated law and the decision procedure. No I/O, no clock."""
