"""Data we draw, and the small model trained on it: cartoon people of 128 x 128 px whose captions are known."""
