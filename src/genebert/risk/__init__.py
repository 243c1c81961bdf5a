"""Disease risk of the individuals of a cohort, from what their haplotypes do to regulatory regions."""
