"""The comparison of the four temporal designs: training, videos and measurements with one command."""
