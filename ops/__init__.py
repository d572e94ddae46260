"""What people touch: commands, views, the offline door."""
