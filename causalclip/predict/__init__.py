"""Use a trained run on your own images: predict, explain, detect foreign images, export, share."""
