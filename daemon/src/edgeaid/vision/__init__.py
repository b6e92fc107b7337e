"""Pixels: pictures to tensors, tensors to labels, boxes and masks, and drawing them."""
