"""The temporal designs: local, matrix, hybrid and full 3D attention."""
