"""The commands: their options, help texts and output. Each imports its implementation when it runs."""
