"""What the passes of this topic share: how tables are composed, moved, made smaller and priced."""
