"""From images to instructions, cycles and outputs: on this machine, an emulated core or a board."""
