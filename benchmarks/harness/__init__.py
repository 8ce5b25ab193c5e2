"""The parts that all benchmarks share: the contenders, their start and load, and the storage of results."""
