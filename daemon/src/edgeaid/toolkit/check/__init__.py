"""Rules by which a model file fits a target, and the checks that apply them."""
