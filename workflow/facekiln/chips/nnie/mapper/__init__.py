"""nnie_mapper: its .cfg, its emulator, and running either."""
