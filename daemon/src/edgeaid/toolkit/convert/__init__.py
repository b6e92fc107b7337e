"""From one model format to another, to integers or to fewer weights, each result compared with its source."""
