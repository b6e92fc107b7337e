"""Protocols of home automation and video recorders: DeepStack's and DOODS'. Off unless the configuration says so."""
