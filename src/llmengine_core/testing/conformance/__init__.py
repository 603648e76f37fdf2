"""A plugin under its contracts without pytest, in processes of their own: whatever it does, the run comes to an end."""
