"""The benchmarks: ``python -m benchmarks``. See docs/performance.md for what is measured and why."""
