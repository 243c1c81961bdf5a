"""New cell types on new chromosomes: what a method predicts where it saw neither, and what of it is specific there."""
