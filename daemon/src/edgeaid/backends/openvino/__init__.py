"""The Neural Compute Stick 2 through OpenVINO's MYRIAD plugin."""
