"""Calibration: the speed plans of a model, found and measured on its own examples."""
