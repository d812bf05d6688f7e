"""The only package that calls the Encord SDK: open a project, list, load, save, move, and understand its errors."""
