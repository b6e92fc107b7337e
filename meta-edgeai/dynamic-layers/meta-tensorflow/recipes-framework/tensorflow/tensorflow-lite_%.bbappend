require edgeai-tensorflow.inc
