"""What explaining does: importance of TFs, of pairs of them, and of the bases of a locus, and the stage `explain`."""
