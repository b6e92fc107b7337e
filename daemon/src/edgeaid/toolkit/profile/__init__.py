"""`edgeai model profile`: where the time of a model goes, operator by operator."""
