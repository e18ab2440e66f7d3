"""The command lines: arguments, progress and printing of each command; no logic of their own."""
