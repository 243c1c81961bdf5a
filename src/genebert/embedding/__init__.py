"""What embedding does: states of regions, of examples and of cell types, their coordinates, files and the stage."""
