"""The promises of the README, one file each, over topologies x sync and async x savers."""
