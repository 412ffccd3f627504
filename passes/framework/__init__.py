"""What a pass is, and what names, reads, runs and watches passes."""
