"""The corpus: what `prepare` builds from a genome, peaks and motifs, and how it is read."""
