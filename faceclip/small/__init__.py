"""The small model that comes along: its sizes, and its files in weights/."""
