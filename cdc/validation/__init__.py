"""Source and copy compared at one position, and what differs repaired."""
