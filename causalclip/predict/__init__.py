"""A trained run on pictures of your own: answers, what they rest on, and files for elsewhere."""
