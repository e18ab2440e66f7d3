"""Nearest neighbours: the kinds of index, building, answering, the graph of all. Users import these names from `ann`."""
