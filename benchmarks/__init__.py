"""What Lookalike is held to, measured: `python -m benchmarks` (`make bench`). `benchmarks/README.md` says how and why."""
