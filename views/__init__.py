"""Views of a whole collection, computed from the vectors that its index holds: what goes in, what a generation keeps.

A module a view: `groups`, `duplicates`, `map`. Does not own the methods (`clusters.py`, `duplicates.py`, `map2d.py`: arrays in,
arrays out), nor pages (`web/`).
"""
