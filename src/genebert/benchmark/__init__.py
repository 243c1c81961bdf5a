"""Tasks x methods x seeds: what a suite consists of, what is computed and kept, and how it is measured."""
