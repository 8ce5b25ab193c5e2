"""What all benchmarks share: who takes part, how they are started and loaded, how results are kept."""
