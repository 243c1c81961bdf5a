"""Parts of the simulation: `genome` (sequence, layout, genes), `regulation` (accessibility), `cohort`."""
