"""What circuits cost: bootstraps, their time, and what would make them cheaper."""
