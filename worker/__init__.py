"""The process that owns a device: takes jobs, runs the model, writes the videos."""
