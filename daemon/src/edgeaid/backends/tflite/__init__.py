"""The CPU: TensorFlow Lite through LiteRT or tflite_runtime, and SavedModels through TensorFlow."""
