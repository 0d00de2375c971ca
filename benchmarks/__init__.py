"""Scripts that print the tables of docs/benchmarks.md; `make bench` runs them all."""
