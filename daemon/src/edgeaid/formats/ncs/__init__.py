"""Graph files and blobs of the Movidius Neural Compute Sticks."""
