"""What the benchmarks of the service have in common: texts, the reference in process, a real server, and a load."""
