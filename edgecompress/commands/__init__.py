"""The commands, a module a group; each has its functions and their options in COMMANDS."""
