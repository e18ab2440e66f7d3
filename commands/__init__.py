"""The command lines: arguments, progress and printing of each runnable module; no logic of its own."""
