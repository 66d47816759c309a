"""Outside effects of the mission service: its inputs, its tokens."""
