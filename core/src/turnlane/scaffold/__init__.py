"""New plugins: a whole distribution, made from templates, that works before a line is changed."""
