require toy-of-class.inc
