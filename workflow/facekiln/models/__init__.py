"""Networks, their registry, and checkpoints: reading, proving and fetching them."""
