"""Formats that training frameworks exchange: ONNX, TensorFlow graphs, Caffe, OpenVINO IR."""
