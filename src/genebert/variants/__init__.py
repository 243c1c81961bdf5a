"""What variants do: windows of both alleles, their scores, and the stage `variants`."""
