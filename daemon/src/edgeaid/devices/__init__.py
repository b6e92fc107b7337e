"""Accelerators as hardware: what is plugged in where, hot-plug, states, and recovery.

Nothing here imports a runtime. A device's identity is the physical port it sits in, because USB ids and device numbers
change when firmware is loaded and indices change when a second stick appears.
"""
