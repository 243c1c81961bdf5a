"""Methods in cell types and on chromosomes that are both left out, and how well they tell cell types apart."""
